"""Attention to the places and to one more vector: a visual sentinel, or the picture as a whole."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visattn.attention.contract import Glimpse, Memory
from visattn.attention.scores import AdditiveScore, Score
from visattn.attention.soft import SoftAttention, context
from visattn.errors import InputError
from visattn.fast.conversion import working_precision
from visattn.fast.linear import Linear


class AttentionBeside(SoftAttention):
    """Soft attention that divides a word between the places and one more vector b: ĉ = β Σᵢ αᵢ aᵢ + (1 − β) b.

    b competes with the places in one softmax (Lu et al. 2017, eq. 12), in which it has the weight 1 − β; α is the
    softmax over the places alone. β, the share of the places, is the glimpse's `gate`, as Xu's β is (Lu's β is 1 − β
    here). Subclasses define `beside`.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector and of b.
        score: constructs the score from (Q, D).

    Raises:
        InputError: if the score does not depend on content.
    """

    called: str  # b, in messages

    def __init__(self, query_size: int, value_size: int, score: Callable[[int, int], Score] = AdditiveScore) -> None:
        super().__init__(query_size, value_size, score)
        if not self.score.by_content:
            raise InputError(
                f"{type(self.score).__name__} scores places by their number, and {self.called} has none; "
                "use another score"
            )

    def beside(self, query: Tensor, memory: Memory) -> Tensor:
        """b, (N, D)."""
        raise NotImplementedError

    def key(self, beside: Tensor, query: Tensor, memory: Memory) -> Tensor:
        """The key of b, (N, A)."""
        return self.score.keys(beside.unsqueeze(1))[:, 0]

    def count(self, query: Tensor, memory: Memory) -> Tensor:
        """The number of places as which b counts in the softmax, (N, 1)."""
        return query.new_ones(len(query), 1, dtype=torch.float32)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        scores, beside = self.scores(query, memory), self.beside(query, memory)
        of_beside = self.score(query.unsqueeze(1), self.key(beside, query, memory).unsqueeze(1)).float()[:, 0]  # (N, 1)
        shares = torch.cat([scores, of_beside + self.count(query, memory).log()], dim=-1).softmax(dim=-1)
        weights, gate = self.distribution(scores), 1 - shares[:, -1]
        return Glimpse.soft(self.mixed(beside, memory, weights, gate), weights)._replace(gate=gate)

    def mixed(self, beside: Tensor, memory: Memory, weights: Tensor, gate: Tensor) -> Tensor:
        """ĉ of b (N, D), weights (N, L) and a share of the places (N,), (N, D)."""
        share = gate.unsqueeze(-1)
        own = (1 - share) * beside
        return context(share * weights, memory) + own.to(memory.values.dtype)

    def terms(self, query: Tensor, memory: Memory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """β α over the places; the part of b does not depend on α."""
        return (glimpse.gate.unsqueeze(-1) * glimpse.weights).unsqueeze(1), memory.values.unsqueeze(1)


class SentinelAttention(AttentionBeside):
    """Adaptive attention: a visual sentinel says how much of a word comes from the picture at all (Lu et al. 2017).

    The sentinel s = σ(W_g q) ⊙ tanh(W_s q) holds what the decoder knows already (eq. 9 and 10), and is not in the
    picture: β is the picture's share. Context of eq. 11 and 12.

    Two departures make it a mechanism like the others, for any decoder and score by content. The sentinel is computed
    from the query, where Lu takes the LSTM's cell, input and previous state; and its score has the weights of the
    places' scores, where Lu has a projection of its own.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector and of the sentinel.
        score: constructs the score from (Q, D).

    Raises:
        InputError: if the score does not depend on content.
    """

    called = "a sentinel"

    def __init__(self, query_size: int, value_size: int, score: Callable[[int, int], Score] = AdditiveScore) -> None:
        super().__init__(query_size, value_size, score)
        self.gate = Linear(query_size, value_size)
        self.known = Linear(query_size, value_size)

    def beside(self, query: Tensor, memory: Memory) -> Tensor:
        """s, (N, Q) to (N, D)."""
        return torch.sigmoid(self.gate(query)) * torch.tanh(self.known(query))


@dataclass(frozen=True, eq=False, kw_only=True)
class WholeMemory(Memory):
    """A memory whose values are the differences of the places from the whole.

    Attributes:
        whole: (B, D) the mean annotation vector.
        whole_key: (B, A) its key.
        count: (B,) float32, the number of places.
    """

    whole: Tensor
    whole_key: Tensor
    count: Tensor


class WholeAttention(AttentionBeside):
    """Soft attention to the places' differences from the mean, and to the mean: the picture as a whole.

    With ā the mean of the annotation vectors, ĉ = β Σᵢ αᵢ (aᵢ − ā) + (1 − β) ā. In soft attention the context of a
    uniform α is ā, from which a decoder can tell most of what captions say. Here it is (1 − β) ā, so how much a word
    takes from the picture as a whole is shown. ā counts in the softmax as often as there are places: β is ½ if all
    scores are equal. The memory's values have a mean of 0, so a decoder whose initial state is computed from their mean
    begins alike for all pictures.

    Ours; the competition of an additional vector with the places is that of Lu et al. (2017).

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).

    Raises:
        InputError: if the score does not depend on content.
    """

    called = "the whole"

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> WholeMemory:
        present = values.new_ones(values.shape[:2], dtype=torch.float32) if mask is None else mask.float()
        count = present.sum(dim=1)
        whole = torch.einsum("bl,bld->bd", present / count.unsqueeze(1), values.float()).to(values.dtype)
        places = super().prepare(values - whole.unsqueeze(1), grid, mask)
        whole = working_precision(whole)
        return WholeMemory(**vars(places), whole=whole, whole_key=self.keys(whole.unsqueeze(1))[:, 0], count=count)

    def beside(self, query: Tensor, memory: Memory) -> Tensor:
        """ā, (B, D) to (N, D)."""
        assert isinstance(memory, WholeMemory)
        return _for_captions(memory.whole, query, memory)

    def key(self, beside: Tensor, query: Tensor, memory: Memory) -> Tensor:
        """The whole's, (B, A) to (N, A), computed once for each image."""
        assert isinstance(memory, WholeMemory)
        return _for_captions(memory.whole_key, query, memory)

    def count(self, query: Tensor, memory: Memory) -> Tensor:
        """The number of places of each image, (N, 1)."""
        assert isinstance(memory, WholeMemory)
        return _for_captions(memory.count.unsqueeze(1), query, memory)


def _for_captions(of_images: Tensor, query: Tensor, memory: Memory) -> Tensor:
    """Rows of images (B, …) as rows of their captions (N, …)."""
    return of_images.unsqueeze(1).expand(-1, memory.per_image(query).shape[1], -1).flatten(0, 1)
