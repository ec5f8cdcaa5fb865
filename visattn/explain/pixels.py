"""Gradients of a class logit by the pixels, and sums of pixels' values over the cells of a map."""

import torch
from torch import Tensor

from visattn.explain.targets import checked_targets, require_classes, total_score
from visattn.explain.vit import ViT


def pixel_gradient(vit: ViT, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradient (B, 3, h, w) of each image's class logit by its pixels, and the classes (B,).

    Args:
        vit: any model that is read, of one grid or of several.
        images: normalised (B, 3, h, w).
        targets: (B,) the class of each image; None uses the likeliest.

    Raises:
        InputError: if the model has no classes, or no such class.
    """
    require_classes(vit.classes, vit.name)
    with torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        logits = vit.run(images, lambda layer, call: None).logits
        targets = checked_targets(logits, targets, vit.name)
        (gradient,) = torch.autograd.grad(total_score(logits, targets), images)
    return gradient, targets


def by_cell(values: Tensor, vit: ViT) -> Tensor:
    """Sums over the pixels of each patch: (B, h, w) to (B, H, W), float32; the total stays the same.

    Pixels at the right and bottom that fill no patch, which the model does not see, count to the last one.
    """
    height, width = values.shape[-2:]
    for dim, cells, patch in zip((-2, -1), vit.grid((height, width)), vit.patch, strict=True):
        cell = (torch.arange(values.shape[dim], device=values.device) // patch).clamp_(max=cells - 1)
        shape = list(values.shape)
        shape[dim] = cells
        values = values.new_zeros(shape, dtype=torch.float32).index_add_(dim, cell, values.float())
    return values
