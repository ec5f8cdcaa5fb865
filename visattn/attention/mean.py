"""No attention: every word sees the mean of all places."""

from torch import Tensor

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.soft import context


class MeanAttention(SpatialAttention):
    """One fixed vector per image, z = Σᵢ aᵢ / L: the baseline without attention, as in Vinyals et al. 2015.

    Args:
        query_size: Q; not used.
        value_size: D; not used.
    """

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()

    def keys(self, values: Tensor) -> Tensor:
        return values[..., :0]

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        seen = memory.values.new_ones(memory.values.shape[:2]).float() if memory.mask is None else memory.mask.float()
        weights = (seen / seen.sum(dim=1, keepdim=True)).unsqueeze(1)
        weights = weights.expand(-1, memory.per_image(query).shape[1], -1).flatten(0, 1)  # (N, L)
        return Glimpse.soft(context(weights, memory), weights)
