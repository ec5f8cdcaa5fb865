"""One map out of many layers."""

import torch
from torch import Tensor


def attention_rollout(maps: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, section 3): which tokens a token is made of, through all layers.

    Heads are averaged. Each layer passes a token on by half, for the residual connection: A = (W + I) / 2; the layers'
    matrices are multiplied, the last on the left.

    Args:
        maps: (B, depth, heads, N, N) attention weights, rows sum to 1.

    Returns:
        (B, N, N), rows sum to 1.
    """
    layers = (maps.mean(dim=2) + torch.eye(maps.shape[-1], device=maps.device)) / 2
    rollout = layers[:, 0]
    for layer in range(1, layers.shape[1]):
        rollout = layers[:, layer] @ rollout
    return rollout


def class_token_map(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the class token attends to among the patches: (..., 1 + L, 1 + L) to (..., H, W).

    The share of the class token itself is left out and nothing is rescaled, so a map sums to what the patches got.
    """
    return weights[..., 0, 1:].unflatten(-1, grid)
