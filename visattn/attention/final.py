"""No attention: every word sees the final states of a recurrent encoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.errors import InputError


class FinalStateAttention(SpatialAttention):
    """One fixed vector per sequence, the encoder's final states, fed to the decoder at each step (Cho 2014, eq. 7).

    With one direction z is the annotation vector of the last place that is not masked. The vectors of a bidirectional
    encoder are [forward; backward], and each direction ends at another end: z is the forward half of the last place
    and the backward half of the first. The query has no influence.

    Args:
        query_size: Q; not used.
        value_size: D; even if the encoder is bidirectional.
        bidirectional: whether the halves of an annotation vector are those of two directions.

    Raises:
        InputError: if vectors of two directions have an odd size.
    """

    def __init__(self, query_size: int, value_size: int, bidirectional: bool = True) -> None:
        super().__init__()
        if bidirectional and value_size % 2:
            raise InputError(
                f"bidirectional is true, but annotation vectors of {value_size} numbers have no halves; use an even "
                "size, or set bidirectional to false"
            )
        self.bidirectional = bidirectional

    def keys(self, values: Tensor) -> Tensor:
        return values[..., :0]

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        ends = self._ends(memory)
        context = torch.einsum("bhl,bhld->bd", ends.to(memory.values.dtype), self._parts(memory.values))
        context, weights = (
            part.unsqueeze(1).expand(-1, memory.per_image(query).shape[1], -1).flatten(0, 1)
            for part in (context, ends.mean(dim=1))
        )
        return Glimpse.soft(context, weights)

    def terms(self, query: Tensor, memory: Memory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """A head for each direction."""
        captions = memory.per_image(query).shape[1]
        return self._ends(memory).repeat_interleave(captions, dim=0), self._parts(memory.values)

    def _ends(self, memory: Memory) -> Tensor:
        """(B, directions, L) float32, 1 where a direction ends."""
        batch, places = memory.values.shape[:2]
        seen = memory.mask
        if seen is None:
            seen = torch.ones(batch, places, dtype=torch.bool, device=memory.values.device)
        number = torch.arange(1, places + 1, device=seen.device)
        last = (seen * number).argmax(dim=1)
        ends = [last, (seen * number.flip(0)).argmax(dim=1)] if self.bidirectional else [last]
        return F.one_hot(torch.stack(ends, dim=1), places).float()

    def _parts(self, values: Tensor) -> Tensor:
        """(B, directions, L, D) annotation vectors, 0 in the numbers of the other direction."""
        if not self.bidirectional:
            return values.unsqueeze(1)
        half = values.shape[-1] // 2
        forward, backward = values.split(half, dim=-1)
        return torch.stack([F.pad(forward, (0, half)), F.pad(backward, (half, 0))], dim=1)
