"""The class that a map explains."""

import torch
from torch import Tensor

from visattn.errors import InputError


def require_classes(classes: int, name: str) -> None:
    """Raise an `InputError` if the model called `name` gives features instead of classes."""
    if not classes:
        raise InputError(
            f"{name} has no classes, so there is none to explain; choose raw, rollout or value-norm, or, where it "
            "compares images with texts, give a text (--text)"
        )


def checked_targets(logits: Tensor, targets: Tensor | None, name: str) -> Tensor:
    """(B,) the classes to explain on the logits' device: those given, or the likeliest of logits (B, classes).

    Raises:
        InputError: if they are not a class index for each image.
    """
    if targets is None:
        return logits.argmax(dim=-1)
    targets = torch.as_tensor(targets).to(logits.device).clone()  # one made in inference mode cannot serve gradients
    if targets.shape != logits.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
        raise InputError(f"targets must be {len(logits)} class indices, one per image, not {targets}")
    unknown = targets[(targets < 0) | (targets >= logits.shape[1])].tolist()
    if unknown:
        raise InputError(f"{name} has {logits.shape[1]} classes, numbered from 0; there is no class {unknown[0]}")
    return targets


def total_score(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of the targets' logits, float32; since images do not mix, its gradient is each image's own."""
    return logits.float().gather(1, targets.unsqueeze(1)).sum()
