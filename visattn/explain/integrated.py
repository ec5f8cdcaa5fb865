"""Integrated gradients: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks"."""

from dataclasses import dataclass

import torch
from torch import Tensor

from visattn.errors import require_number
from visattn.explain.pixels import by_cell, pixel_gradient
from visattn.explain.targets import checked_targets, require_classes
from visattn.explain.vit import ViT


@dataclass(frozen=True)
class IntegratedGradients:
    """x ∘ ∫ ∇f(a x) da for a from 0 to 1 (their section 3), summed over channels and the pixels of each cell.

    The baseline is 0 in normalised space, the grey of deletion. The map's sum is f(x) − f(0), f the class logit, up to
    the error of the sum that stands for the integral: the midpoint rule.

    Args:
        steps: gradients, equally spaced; each costs a forward and a backward pass.
    """

    steps: int = 32

    def __post_init__(self) -> None:
        require_number("steps", self.steps, least=1, of="integrated gradients")

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W).

        Raises:
            InputError: if the model has no classes, or no such class.
        """
        require_classes(vit.classes, vit.name)
        if targets is None:
            with torch.no_grad():
                targets = checked_targets(vit.run(images, lambda layer, call: None).logits, None, vit.name)
        total = torch.zeros_like(images)
        for step in range(self.steps):
            total += pixel_gradient(vit, images * ((step + 0.5) / self.steps), targets)[0]
        return by_cell((images * total / self.steps).sum(dim=1), vit)

    def __str__(self) -> str:
        return "integrated gradients"
