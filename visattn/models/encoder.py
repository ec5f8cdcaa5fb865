"""A timm backbone as an encoder: images to a grid of annotation vectors."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import Format
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.modules.batchnorm import _BatchNorm

from visattn.errors import InputError, similar
from visattn.images import CellShift
from visattn.models.grid_encoder import Annotations, GridEncoder
from visattn.models.weights import how_to_get, of_file, of_package

log = logging.getLogger(__name__)


class Encoder(GridEncoder):
    """A convolutional or transformer backbone, truncated where its output is still a grid.

    The constructor only builds the architecture; `load_weights` loads pretrained weights once, before training. So a
    checkpoint can be used without network access or the weights file.

    Args:
        backbone: name of a timm model (`timm.list_models()`).
        stage: which of the backbone's feature maps to use, as in timm's `out_indices`; -1 is the last and coarsest.
            "head" is the input of the classifier's pooling; in EfficientNets and MobileNets it is one convolution
            later.
        weights: "pretrained" for weights from an installed package (the extra `photos`), or else from timm's hub;
            "random" for none; or the path of a weights file with timm's keys.
        train_from: the first stage to train, numbered in the same way; 0 trains everything, None freezes everything.
            Frozen stages are also kept in evaluation mode.
        mean: mean of each channel, for pixels in [0, 1]; None uses the values that the backbone was trained with.
        std: standard deviation of each channel.
        options: more arguments for `timm.create_model`, such as `img_size` for a transformer.
        pool: average blocks of this many cells in each direction, so that a fine grid costs the decoder less: DINOv2's
            16×16 patches of 14 pixels become 8×8 cells of 28 with 2.
        keep_statistics: trained batch normalisation layers keep their mean and variance, and learn only scale and
            shift; recommended for pretrained weights, which suffer from the statistics of other images.

    Raises:
        InputError: if timm does not have the backbone, or it has no such stage; if `pool` is below 1, or does not
            divide the grid of an image.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        stage: int | Literal["head"] = -1,
        weights: str = "random",
        train_from: int | None = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        options: dict[str, Any] | None = None,
        keep_statistics: bool = False,
        pool: int = 1,
    ) -> None:
        if pool < 1:
            raise InputError(f"encoder option 'pool' is {pool}; it must be at least 1 (1 keeps the grid)")
        if not timm.is_model(backbone):
            known = similar(backbone, timm.list_models()) or "see timm.list_models()"
            raise InputError(f"timm has no backbone named '{backbone}' (similar: {known})")
        body, size = _body(backbone, stage, options or {})
        config = resolve_model_data_config(body)
        super().__init__(body, size, mean or config["mean"], std or config["std"])
        self.channels_last = Format(getattr(body, "output_fmt", "NCHW")) is Format.NHWC
        self.backbone, self.stage, self.weights, self.options = backbone, stage, weights, options or {}
        self.pool = pool
        self._freeze_before(train_from)
        self._evaluated = [
            module
            for module in self.body.modules()
            if module in self._frozen_modules or (keep_statistics and isinstance(module, _BatchNorm))
        ]
        self.train()  # so that frozen stages are in evaluation mode from the start: Lightning does not change modes
        for weight in self.body.parameters():
            if weight.ndim == 4:  # 3 to 4 times as fast on a CPU, measured on EfficientNet-Lite0
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    @property
    def description(self) -> str:
        return f"{self.backbone} {self.stage} {self.options}" + (f" pool {self.pool}" if self.pool > 1 else "")

    @property
    def name(self) -> str:
        return self.backbone

    def load_weights(self) -> None:
        """Replace the backbone's parameters by pretrained ones, according to `weights`.

        Parameters for another input size, such as position embeddings, are resampled if timm supports it, and this is
        logged.

        Raises:
            InputError: if the file is missing, is not a weights file, or is for another backbone; if neither a
                package nor the hub has the weights.
        """
        if self.weights == "random":
            return
        if self.weights == "pretrained":
            self.load_pretrained("give a weights file: --model.encoder.weights FILE")
            return
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise InputError(
                f"no weights file at {path} (encoder option 'weights'); give 'pretrained', 'random' or a file"
            )
        try:
            self._take(load_state_dict(str(path)), path)
        except Exception as error:  # reading another kind of file raises many kinds of errors
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} does not contain weights of the backbone '{self.backbone}': {reason}") from error

    def load_pretrained(self, *ways_out: str) -> None:
        """Replace the backbone's parameters by those of an installed package or, without one, of timm's hub.

        Args:
            ways_out: additional suggestions for the error message.

        Raises:
            InputError: if neither has them.
        """
        try:
            if (state := of_package(self.backbone)) is not None:
                self._take(state)
                return
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the weights in the package do not fit the backbone '{self.backbone}': {reason}"
            ) from error
        try:
            body = _body(self.backbone, self.stage, self.options, pretrained=True)[0]
        except Exception as error:  # of the hub's client, the network and the file, of many kinds
            ways = ", or ".join([*how_to_get(self.backbone), *ways_out])
            raise InputError(
                f"the weights of {self.backbone} could not be downloaded from timm's hub "
                f"({' '.join(str(error).split())[:200]})" + (f"; {ways}" if ways else "")
            ) from error
        log.info("weights of %s: timm's hub", self.backbone)
        self.body.load_state_dict(body.state_dict())

    def forward(self, images: Tensor) -> Annotations:
        values, (height, width) = annotations = super().forward(images)
        if self.pool == 1:
            return annotations
        if height % self.pool or width % self.pool:
            raise InputError(
                f"encoder option 'pool' is {self.pool}, which does not divide the backbone's grid of {width}×{height}; "
                "choose another image size or pool"
            )
        pooled = avg_pool2d(values.transpose(1, 2).unflatten(2, (height, width)), self.pool)
        return Annotations(pooled.flatten(2).transpose(1, 2), (height // self.pool, width // self.pool))

    def cell_shift(self, image_size: tuple[int, int]) -> CellShift:
        shift = super().cell_shift(image_size)  # a block begins at its first cell's corner
        return CellShift(shift, (shift.stride[0] * self.pool, shift.stride[1] * self.pool), shift.seen)

    def _take(self, state: dict[str, Tensor], file: Path | None = None) -> None:
        """Load a whole model's weights by timm's names; raises a `RuntimeError` if some are missing or do not fit.

        Parameters of another size, such as position embeddings, are resampled if timm supports it.
        """
        state = {_flat(name): value for name, value in state.items()}
        own = self.body.state_dict()
        missing = [n for n in own if _flat(n) not in state and not n.endswith("num_batches_tracked")]
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(own)} tensors are missing, {missing[0]} first")
        found = {name: state.get(_flat(name), value) for name, value in own.items()}
        if file is not None and any(found[name].shape != value.shape for name, value in own.items()):
            self._take(of_file(self.backbone, file, **{"num_classes": 0, **self.options}).state_dict())
        else:
            self.body.load_state_dict(found)

    def _freeze_before(self, train_from: int | None) -> None:
        """Stop gradients before a stage. timm declares its modules in the order in which they run."""
        information: Any = self.body.feature_info
        stages = [stage["module"] for stage in getattr(information, "info", information)]
        if train_from is not None and not 0 <= train_from < len(stages):
            raise InputError(f"the backbone '{self.backbone}' has stages 0 to {len(stages) - 1}, not {train_from}")
        names = [_flat(name) for name, _ in self.body.named_modules()]
        if train_from == 0:
            last = -1
        elif train_from is None:
            last = len(names)
        else:
            before = _flat(stages[train_from - 1])
            last = max(
                (i for i, n in enumerate(names) if n == before or n.startswith(before + "_")), default=len(names)
            )
        self._frozen_modules = [m for i, (_, m) in enumerate(self.body.named_modules()) if i <= last]
        for module in self._frozen_modules:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode for trained stages, except for layers that keep their statistics."""
        super().train(mode)
        for module in self._evaluated:
            module.training = False  # not `eval()`, which would reach into trained children
        return self


def _body(
    backbone: str, stage: int | Literal["head"], options: dict[str, Any], pretrained: bool = False
) -> tuple[nn.Module, int]:
    """A module from pixels to a list of one feature map, and the size of its vectors."""
    if stage == "head":
        whole: Any = timm.create_model(backbone, pretrained, num_classes=0, global_pool="", **options)
        return _BeforePooling(whole), whole.num_features
    try:
        asked = {"features_only": True, "out_indices": (stage,), **options}
        body: Any = timm.create_model(backbone, pretrained, **asked)
    except (IndexError, AssertionError) as error:
        raise InputError(f"the backbone '{backbone}' has no stage {stage}; -1 is its last") from error
    return body, body.feature_info.channels()[-1]


class _BeforePooling(nn.Module):
    """A timm classifier up to its pooling over places."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.feature_info, self.pretrained_cfg = model, model.feature_info, model.pretrained_cfg
        self.output_fmt = getattr(model, "output_fmt", "NCHW")

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, h, w) to one map (B, D, H, W)."""
        return [self.model.forward_features(pixels)]


def _flat(name: str) -> str:
    """A module's or tensor's name as timm's feature extractors and its plain models share it."""
    return name.removeprefix("model.").replace(".", "_")
