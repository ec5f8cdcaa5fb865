"""How well does a place fit the query? One class a score, each named by its paper.

A score projects the values once (`keys`) and compares them with the query at every step. Sizes come first in every
constructor: that of the query (Q) and that of the values (D).
"""

import math

import torch
from torch import Tensor, nn

from visattn.errors import InputError


class Score(nn.Module):
    """The contract: `keys` once per image, `forward` at every step."""

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) values to (B, L, A) keys."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """(B, Q) query and (B, L, A) keys to (B, L) scores, before the softmax."""
        raise NotImplementedError


class AdditiveScore(Score):
    """e = vᵀ tanh(W q + U k + b): Bahdanau 2014, appendix A.1.2; the multilayer perceptron of Xu 2015, eq. 4.

    Also Luong's "concat" (2015, eq. 8), whose W[q; k] is the same sum of two products.

    Args:
        query_size: Q.
        value_size: D.
        hidden: A, the size of the hidden layer.
    """

    def __init__(self, query_size: int, value_size: int, hidden: int = 512) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden, bias=False)
        self.key = nn.Linear(value_size, hidden)
        self.energy = nn.Linear(hidden, 1, bias=False)  # a constant would vanish in the softmax

    def keys(self, values: Tensor) -> Tensor:
        return self.key(values)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.energy(torch.tanh(self.query(query).unsqueeze(1) + keys)).squeeze(-1)


class DotScore(Score):
    """e = qᵀ k: Luong 2015, eq. 8. It has no parameters, so query and values must be of one size.

    Raises:
        InputError: where they are not.
    """

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        if query_size != value_size:
            raise InputError(
                f"the dot score needs a query and values of one size, not {query_size} and {value_size}; "
                "use the general score, or set the decoder's hidden size to that of the annotation vectors"
            )

    def keys(self, values: Tensor) -> Tensor:
        return values

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.einsum("bq,blq->bl", query, keys.to(query.dtype))


class ScaledDotScore(DotScore):
    """e = qᵀ k / √Q: Vaswani 2017, eq. 1; the scale keeps the softmax away from saturation in large sizes."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().forward(query, keys) / math.sqrt(query.shape[-1])


class GeneralScore(Score):
    """e = qᵀ W k, bilinear: Luong 2015, eq. 8. W is applied to the values, once per image."""

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(value_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        return self.key(values)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.einsum("bq,blq->bl", query.to(keys.dtype), keys)
