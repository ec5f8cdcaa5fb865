"""The general mechanism, from which all others derive, as a plain function."""

import torch
from torch import Tensor


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, softmax(Q Kᵀ / √A) V (Vaswani 2017, eq. 1).

    Args:
        query: (..., N, A), one row for each that asks.
        keys: (..., L, A), one row for each that can be attended.
        values: (..., L, D), what is handed over.
        mask: bool, broadcastable to (..., N, L), True where attention is allowed.

    Returns:
        The output (..., N, D), and the weights (..., N, L), whose rows sum to 1.
    """
    scores = (query / query.shape[-1] ** 0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(scores.dtype)
    return weights @ values, weights
