"""Attention as it is: one layer, one head or the mean of all."""

from dataclasses import dataclass

from torch import Tensor

from visattn.explain.vit import ViT


@dataclass(frozen=True)
class Raw:
    """What the classes' tokens attend to among the patches, in one layer.

    Args:
        layer: from 0; -1 is the last.
        head: from 0; None takes the mean of all.
    """

    layer: int = -1
    head: int | None = None

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) to maps (B, H, W); the same for every class."""
        heads = None if self.head is None else [self.head]
        return vit.rows(images, [self.layer], heads).mean(dim=(1, 2))

    def __str__(self) -> str:
        layer = "last layer" if self.layer == -1 else f"layer {self.layer}"
        return layer if self.head is None else f"{layer}, head {self.head}"
