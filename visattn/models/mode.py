"""The mode of a module, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode, for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
