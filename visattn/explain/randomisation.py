"""Does a map depend on what the model has learnt? Adebayo et al. 2018, "Sanity Checks for Saliency Maps"."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from visattn.explain.vit import ViT


@contextmanager
def shuffled(vit: ViT, seed: int = 0) -> Iterator[None]:
    """Within this context every parameter has its entries in another order: the same numbers, nothing learnt.

    It stands for the end of the paper's cascade, where the weights of all layers are random. Shuffling, not drawing
    anew, keeps each parameter's scale whatever its initialisation was. In place, since a `ViT` has functions that hold
    the model's modules, and a copy of it would have the same functions.
    """
    generator = torch.Generator().manual_seed(seed)
    learnt = [(parameter, parameter.detach().clone()) for parameter in vit.model.parameters()]
    try:
        with torch.no_grad():
            for parameter, values in learnt:
                order = torch.randperm(values.numel(), generator=generator).to(values.device)
                parameter.copy_(values.flatten()[order].view_as(values))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in learnt:
                parameter.copy_(values)
