"""Soft attention: the weighted mean of all places."""

from collections.abc import Callable

from torch import Tensor

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.scores import AdditiveScore, Score


class SoftAttention(SpatialAttention):
    """The deterministic attention of Xu 2015 (section 4.2); "global" attention in Luong 2015 (section 3.1).

    α = softmax(e) over the places, context z = Σᵢ αᵢ aᵢ (Xu, eq. 5, 6 and 13).

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).
    """

    def __init__(self, query_size: int, value_size: int, score: Callable[[int, int], Score] = AdditiveScore) -> None:
        super().__init__()
        self.score = score(query_size, value_size)

    def check_grid(self, grid: tuple[int, int]) -> None:
        self.score.check_places(grid[0] * grid[1])

    def keys(self, values: Tensor) -> Tensor:
        return self.score.keys(values)

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        """e, (N, L) float32; −∞ where a place is masked."""
        scores = self.score(memory.per_image(query), memory.keys).float()
        if memory.mask is not None:
            scores = scores.masked_fill(~memory.mask.unsqueeze(1), float("-inf"))
        return scores.flatten(0, 1)

    def distribution(self, scores: Tensor) -> Tensor:
        """α (…, L) from e (…, L)."""
        return scores.softmax(dim=-1)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        weights = self.distribution(self.scores(query, memory))
        return Glimpse.soft(context(weights, memory), weights)


def context(focus: Tensor, memory: Memory) -> Tensor:
    """Σᵢ focusᵢ aᵢ: (N, L) to (N, D)."""
    return (memory.per_image(focus.to(memory.values.dtype)) @ memory.values).flatten(0, 1)
