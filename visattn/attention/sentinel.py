"""Adaptive attention: a visual sentinel says how much of a word comes from the picture at all."""

from collections.abc import Callable

import torch
from torch import Tensor

from visattn.attention.contract import Glimpse, Memory
from visattn.attention.scores import AdditiveScore, Score
from visattn.attention.soft import SoftAttention, context
from visattn.errors import InputError
from visattn.fast.linear import Linear


class SentinelAttention(SoftAttention):
    """Soft attention with one more vector to attend to, which is not in the picture (Lu et al. 2017, section 2.3).

    The sentinel s = σ(W_g q) ⊙ tanh(W_s q) holds what the decoder knows already (eq. 9 and 10). It competes with the
    places in one softmax (eq. 12), whose last weight is β: ĉ = β s + (1 − β) Σᵢ αᵢ aᵢ (eq. 11), where α is the softmax
    over the places alone. Maps show α; the glimpse's `gate` is 1 − β, the share of the picture, which is what β is with
    Xu's gate.

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

    def __init__(self, query_size: int, value_size: int, score: Callable[[int, int], Score] = AdditiveScore) -> None:
        super().__init__(query_size, value_size, score)
        if not self.score.by_content:
            raise InputError(
                f"{type(self.score).__name__} scores places by their number, and a sentinel has none; use another score"
            )
        self.gate = Linear(query_size, value_size)
        self.known = Linear(query_size, value_size)

    def sentinel(self, query: Tensor) -> Tensor:
        """s, (N, Q) to (N, D)."""
        return torch.sigmoid(self.gate(query)) * torch.tanh(self.known(query))

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        scores, sentinel = self.scores(query, memory), self.sentinel(query).unsqueeze(1)
        of_sentinel = self.score(query.unsqueeze(1), self.score.keys(sentinel)).float()[:, 0]  # (N, 1)
        beta = torch.cat([scores, of_sentinel], dim=-1).softmax(dim=-1)[:, -1:]
        weights, gate = self.distribution(scores), 1 - beta[:, 0]
        return Glimpse.soft(self.mixed(query, memory, weights, gate), weights)._replace(gate=gate)

    def mixed(self, query: Tensor, memory: Memory, weights: Tensor, gate: Tensor) -> Tensor:
        """ĉ of weights (N, L) and a share of the picture (N,), (N, D)."""
        share = gate.unsqueeze(-1)
        own = (1 - share) * self.sentinel(query)
        return context(share * weights, memory) + own.to(memory.values.dtype)

    def terms(self, query: Tensor, memory: Memory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """(1 − β) α over the places; the sentinel's part does not depend on α."""
        return (glimpse.gate.unsqueeze(-1) * glimpse.weights).unsqueeze(1), memory.values.unsqueeze(1)
