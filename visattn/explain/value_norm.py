"""Attention weighted by the size of what is attended to: Kobayashi et al. 2020, "Attention is Not Only a Weight".

A head adds Σ_j α_ij f(x_j) to token i, where f(x) = (x W_V + b_V) W_O is the value after the output projection. A large
weight on a token with a small f(x) adds little, so the map is ‖α f(x)‖; of several heads ‖Σ_h α_h f_h(x)‖.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.reading import running
from visattn.explain.vit import Reading, ViT

PROJECTIONS = ("proj", "o_proj", "out_proj", "projection", "output.dense")
"""Where modules of timm, transformers, PyTorch and OpenCLIP have their output projection."""
BETWEEN = ("norm", "sub_norm", "ln_inner", "head_scale")
"""What some of them do to what their heads have attended to before it is projected."""


def _output_projection(module: nn.Module) -> nn.Linear | None:
    found = (functools.reduce(_part, name.split("."), module) for name in PROJECTIONS)
    return next((part for part in found if isinstance(part, nn.Linear)), None)


def _part(module: Any, name: str) -> Any:
    return getattr(module, name, None)


def _projection(call: AttentionCall, name: str) -> Tensor:
    """W_O of the module that attends at the moment, a part for each head: (heads, d′, D)."""
    module = running(_output_projection)
    projection = None if module is None else _output_projection(module)
    heads, size = call.value.shape[1], call.value.shape[3]
    if projection is None or projection.in_features != heads * size:
        raise InputError(f"{name} has no linear output projection of its heads, which value-norm needs; choose raw")
    if not all(isinstance(_part(module, part), nn.Identity | None) for part in BETWEEN):
        raise InputError(f"{name} rescales what its heads have attended to, so value-norm is not defined; choose raw")
    return projection.weight.detach().float().T.unflatten(0, (heads, size))


def contributions(call: AttentionCall, projection: Tensor, head: int | None = None) -> Tensor:
    """How much each key adds to each query: (B, N, M), ‖Σ_h α_h f_h(x)‖, or of one head ‖α_h f_h(x)‖.

    The squared norm of the sum is Σ_hg α_h α_g f_h(x)·f_g(x), which needs no (N, M, D) vectors.

    Args:
        call: of a layer; axis letters as there.
        projection: W_O (heads, d′, D).
        head: None for all.
    """
    heads = slice(None) if head is None else [head]
    with torch.autocast(projection.device.type, enabled=False):
        weights = call.weights(heads=heads)
        added = torch.einsum("bhmv,hvd->bhmd", call.value[:, heads].float(), projection[heads])
        products = torch.einsum("bhmd,bgmd->bhgm", added, added)
        squares = torch.einsum("bhnm,bgnm,bhgm->bnm", weights, weights, products)
    return squares.clamp_(min=0).sqrt_()


@dataclass(frozen=True)
class ValueNorm:
    """‖α f(x)‖ of the patches for the class tokens in one layer.

    Args:
        layer: from 0; -1 is the last.
        head: from 0; None takes what all heads add together.
    """

    layer: int = -1
    head: int | None = None

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) to maps (B, H, W); the same for every class.

        Raises:
            InputError: if there is no such layer or head, or no output projection is found.
        """
        return vit.read_together(images, [self.reading(vit)])[1][0]

    def reading(self, vit: ViT) -> Reading:
        """The same, for a run shared with other readings."""
        vit.require("value-norm")
        chosen, kept = vit.layer(self.layer), []

        def on_call(layer: int, call: AttentionCall) -> None:
            if layer == chosen:
                if self.head is not None:
                    vit._heads([self.head], call)
                kept.append(contributions(call, _projection(call, vit.name), self.head))

        return Reading(on_call, lambda seen: vit.read(kept[0], seen))

    def __str__(self) -> str:
        layer = "last layer" if self.layer == -1 else f"layer {self.layer}"
        return f"value norm, {layer}" + ("" if self.head is None else f", head {self.head}")
