"""The general mechanism, from which all others derive, as a plain function."""

import torch
from torch import Tensor


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, softmax(Q Kᵀ / √A) V (Vaswani 2017, eq. 1).

    Args:
        query: (..., N, A), the queries.
        keys: (..., L, A), one key per place.
        values: (..., L, D), the vectors to average, one per place.
        mask: bool, broadcastable to (..., N, L), True if attention is allowed.

    Returns:
        The output (..., N, D), and the weights (..., N, L), whose rows sum to 1.
    """
    scores = (query / query.shape[-1] ** 0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(scores.dtype)
    return weights @ values, weights
