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

    def check_grid(self, grid: tuple[int, int]) -> None:
        self.score.check_places(grid[0] * grid[1])

    def keys(self, values: Tensor) -> Tensor:
        return self.score.keys(values)

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        """e, (B, L) float32; −∞ where a place is masked."""
        scores = self.score(query, memory.keys).float()
        return scores if memory.mask is None else scores.masked_fill(~memory.mask, float("-inf"))

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        weights = self.scores(query, memory).softmax(dim=-1)
        return Glimpse(context(weights, memory), weights, weights, torch.zeros_like(weights[:, 0]))


def context(focus: Tensor, memory: Memory) -> Tensor:
    """Σᵢ focusᵢ aᵢ, (B, D)."""
    return (focus.to(memory.values.dtype).unsqueeze(1) @ memory.values).squeeze(1)
