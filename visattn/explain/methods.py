"""All methods by the names that commands give them."""

from collections.abc import Callable

from torch import Tensor

from visattn.explain.grad_cam import GradCAM
from visattn.explain.integrated import IntegratedGradients
from visattn.explain.layered import Layered
from visattn.explain.legrad import LeGrad
from visattn.explain.lrp import LRP
from visattn.explain.raw import Raw
from visattn.explain.relevance import Relevance
from visattn.explain.rollout import GradientRollout, Rollout
from visattn.explain.value_norm import ValueNorm
from visattn.explain.vit import ViT

Method = Callable[[ViT, Tensor, Tensor | None], Tensor]

METHODS: dict[str, type] = {
    "raw": Raw,
    "value-norm": ValueNorm,
    "rollout": Rollout,
    "gradient-rollout": GradientRollout,
    "relevance": Relevance,
    "legrad": LeGrad,
    "lrp": LRP,
    "integrated-gradients": IntegratedGradients,
    "grad-cam": GradCAM,
}
OF_CLASS = tuple(name for name in METHODS if name not in ("raw", "value-norm", "rollout"))
"""Those that explain a class; maps of the others are the same for every class."""
ANY_LAYERS = ("raw", "lrp", "integrated-gradients")
"""Those that are defined where layers do not attend over one grid, too."""


def methods_of(vit: ViT) -> tuple[str, ...]:
    """Names of the methods that are defined for a model's attention."""
    if isinstance(vit, Layered):
        return tuple(name for name in METHODS if name in ANY_LAYERS or (name == "rollout" and not vit.why_no_rollout))
    return tuple(name for name in METHODS if not (vit.signed and name in ("rollout", "value-norm")))
