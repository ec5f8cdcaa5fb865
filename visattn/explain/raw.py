"""Raw attention: one layer, and one head or the mean of all."""

from dataclasses import dataclass

from torch import Tensor

from visattn.explain.vit import Reading, ViT


@dataclass(frozen=True)
class Raw:
    """Attention of the class tokens to the patches in one layer.

    Args:
        layer: from 0; -1 is the last.
        head: from 0; None takes the mean of all.
    """

    layer: int = -1
    head: int | None = None

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) to maps (B, H, W); the same for every class."""
        return vit.read_together(images, [self.reading(vit)])[1][0]

    def reading(self, vit: ViT) -> Reading:
        """The same, for a run shared with other readings."""
        on_call, result = vit.reading_rows([self.layer], None if self.head is None else [self.head])
        return Reading(on_call, lambda seen: result(seen).mean(dim=(1, 2)))

    def __str__(self) -> str:
        layer = "last layer" if self.layer == -1 else f"layer {self.layer}"
        return layer if self.head is None else f"{layer}, head {self.head}"
