"""Does a map depend on what the model has learnt? Adebayo et al. 2018, "Sanity Checks for Saliency Maps"."""

import copy

import torch

from visattn.explain.vit import ViT


@torch.no_grad()
def shuffled(vit: ViT, seed: int = 0) -> ViT:
    """A copy of the model whose every parameter has its entries in another order: the same numbers, nothing learnt.

    It stands for the end of the paper's cascade, where the weights of all layers are random. Shuffling, not drawing
    anew, keeps each parameter's scale whatever its initialisation was.
    """
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(vit)
    for parameter in other.model.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
