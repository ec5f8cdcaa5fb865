"""Soft attention: every place is attended, each by its weight."""

from collections.abc import Callable

import torch
from torch import Tensor

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.scores import AdditiveScore, Score


class SoftAttention(SpatialAttention):
    """The deterministic attention of Xu 2015 (section 4.2); "global" attention in Luong 2015 (section 3.1).

    α = softmax(e) over the places, context z = Σᵢ αᵢ aᵢ (Xu, eq. 5, 6 and 13).

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: makes the score from (Q, D).
    """

    def __init__(self, query_size: int, value_size: int, score: Callable[[int, int], Score] = AdditiveScore) -> None:
        super().__init__()
        self.score = score(query_size, value_size)

    def keys(self, values: Tensor) -> Tensor:
        return self.score.keys(values)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        scores = self.score(query, memory.keys).float()
        if memory.mask is not None:
            scores = scores.masked_fill(~memory.mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        context = (weights.to(memory.values.dtype).unsqueeze(1) @ memory.values).squeeze(1)
        return Glimpse(context, weights, weights, torch.zeros_like(weights[:, 0]))
