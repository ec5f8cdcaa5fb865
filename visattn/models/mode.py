"""Temporarily change the mode of a module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode temporarily."""
    training = [part for part in module.modules() if part.training]  # a frozen part may be in evaluation mode
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
