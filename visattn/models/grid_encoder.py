"""The interface of encoders: images to a grid of annotation vectors, with the receptive field centre of each."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from visattn.errors import InputError
from visattn.images import CellShift
from visattn.models.mode import evaluating
from visattn.models.normalise import Normalise
from visattn.models.receptive_field import UnknownPlaceError, cell_centres


class Annotations(NamedTuple):
    """Annotation vectors of a batch of images (Xu 2015, section 3.1.1).

    Attributes:
        values: (B, L, D), row by row from the upper left.
        grid: (H, W) with H * W == L.
    """

    values: Tensor
    grid: tuple[int, int]


class GridEncoder(nn.Module):
    """A network from images to a feature map, whose cells are the annotation vectors.

    Subclass it for a network of your own; `Encoder` is any of timm's. Receptive field centres of the map's cells are
    derived from the network's layers, so that overlays, grounding and exports are right without further code.

    Args:
        body: from normalised pixels (B, 3, h, w) to a feature map (B, D, H, W), or to a list of one.
        size: D.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.

    Attributes:
        channels_last: whether the feature map is (B, H, W, D).
    """

    channels_last = False

    def __init__(
        self, body: nn.Module, size: int, mean: Sequence[float] = (0.5,) * 3, std: Sequence[float] = (0.5,) * 3
    ) -> None:
        super().__init__()
        self.body, self.size = body, size
        self.normalise = Normalise(mean, std)
        self._cell_shift: dict[tuple[int, int], CellShift] = {}

    @property
    def description(self) -> str:
        """Everything besides the parameters that features depend on; part of the name of cached features."""
        return f"{type(self).__module__}.{type(self).__qualname__} {self.body}"

    @property
    def name(self) -> str:
        """Name in messages and file names."""
        return type(self).__name__

    @property
    def frozen(self) -> bool:
        """Whether no parameter is trained, so that features can be cached."""
        return not any(parameter.requires_grad for parameter in self.body.parameters())

    def load_weights(self) -> None:
        """Called once before training; a subclass may load pretrained parameters here."""

    def cell_shift(self, image_size: tuple[int, int]) -> CellShift:
        """Receptive field centres of the annotation vectors for an image of (h, w) pixels, from the network's layers.

        Raises:
            InputError: if they cannot be derived for this network.
        """
        if image_size not in self._cell_shift:
            try:
                self._cell_shift[image_size] = cell_centres(self.body, image_size, self.channels_last)
            except UnknownPlaceError as error:
                raise InputError(f"the backbone '{self.name}' has no maps that can be overlaid: {error}") from error
        return self._cell_shift[image_size]

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Grid (H, W) of the annotation vectors for an image of (h, w) pixels, without computing them.

        Raises:
            InputError: if the network does not accept images of that size.
        """
        shapes = {name: tensor.to("meta") for name, tensor in (*self.named_parameters(), *self.named_buffers())}
        pixels = torch.empty(1, 3, *image_size, dtype=torch.uint8, device="meta")
        try:
            with torch.no_grad(), evaluating(self):
                return functional_call(self, shapes, pixels).grid
        except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:  # depends on the network
            size, reason = "×".join(map(str, image_size[::-1])), " ".join(str(error).split())[:200]
            raise InputError(f"the backbone '{self.name}' cannot take an image of {size} pixels: {reason}") from error

    def forward(self, images: Tensor) -> Annotations:
        """Images (B, 3, h, w) uint8 to annotation vectors (B, L, D) and their grid."""
        pixels = self.normalise(images).contiguous(memory_format=torch.channels_last)
        features = self.body(pixels)
        features = features if isinstance(features, Tensor) else features[0]
        if features.ndim != 4:
            raise InputError(f"the backbone '{self.name}' has no grid before its head; use stage -1")
        if self.channels_last:
            features = features.permute(0, 3, 1, 2)
        if features.shape[1] != self.size:
            raise InputError(
                f"the backbone '{self.name}' has maps with {features.shape[1]} channels, expected {self.size}"
            )
        height, width = features.shape[-2:]
        return Annotations(features.flatten(2).transpose(1, 2), (height, width))
