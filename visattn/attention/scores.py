"""Score functions, which compare a query with each place; one class per score, named after its paper.

A score projects the values once (`keys`) and compares them with the query at every step. Constructors take the sizes of
query (Q) and values (D) first. All but the location-based score depend on the content of a place, so they can also
score a subset of the places.
"""

import math

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.fast import additive
from visattn.fast.linear import Linear


class Score(nn.Module):
    """The interface: `keys` once per image, `forward` at every step.

    Attributes:
        by_content: whether the score depends on a place's key, so that any subset of places can be scored.
    """

    by_content = True

    def check_places(self, places: int) -> None:
        """Raise an `InputError` if this number of places is not supported."""

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) values to (B, L, A) keys."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries (B, K, Q), K per image, and keys (B, L, A) to scores (B, K, L), before the softmax."""
        raise NotImplementedError


class AdditiveScore(Score):
    """e = vᵀ tanh(W q + U k + b): Bahdanau 2014, appendix A.1.2; the multilayer perceptron of Xu 2015, eq. 4.

    Also Luong's "concat" (2015, eq. 8), whose W[q; k] is the same sum of two products.

    On a CPU most of the time goes into tanh; `visattn.fast.additive` computes the same without it.

    Args:
        query_size: Q.
        value_size: D.
        hidden: A, the size of the hidden layer.
    """

    def __init__(self, query_size: int, value_size: int, hidden: int = 512) -> None:
        super().__init__()
        self.query = Linear(query_size, hidden, bias=False)
        self.key = Linear(value_size, hidden)
        self.energy = Linear(hidden, 1, bias=False)  # a constant would vanish in the softmax

    def keys(self, values: Tensor) -> Tensor:
        """U k + b, (B, L, A)."""
        keys = self.key(values)
        return additive.prepared(keys) if additive.is_used() else keys

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        query = self.query(query)
        if additive.is_used():
            return additive.scores(query, keys, self.energy.weight[0])
        hidden = torch.tanh(query.unsqueeze(2) + keys.unsqueeze(1))  # (B, K, L, A)
        return self.energy(hidden).squeeze(-1)


class DotScore(Score):
    """e = qᵀ k: Luong 2015, eq. 8. It has no parameters, so query and values must have the same size.

    Raises:
        InputError: if they do not.
    """

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        if query_size != value_size:
            raise InputError(
                f"the dot score needs a query and values of the same size, not {query_size} and {value_size}; "
                "use the general score, or set the decoder's hidden size to that of the annotation vectors"
            )

    def keys(self, values: Tensor) -> Tensor:
        return values

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.to(query.dtype).transpose(1, 2)


class ScaledDotScore(DotScore):
    """e = qᵀ k / √Q: Vaswani 2017, eq. 1; the scale avoids saturation of the softmax for large sizes."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().forward(query, keys) / math.sqrt(query.shape[-1])


class GeneralScore(Score):
    """e = qᵀ W k, bilinear: Luong 2015, eq. 8. W is applied to the values, once per image."""

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.key = Linear(value_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        return self.key(values)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query.to(keys.dtype) @ keys.transpose(1, 2)


class LocationScore(Score):
    """e = W q: Luong 2015, eq. 7; depends only on the query, not on the content of the places.

    W has a row for each place in reading order; for a smaller grid or a shorter sequence the first rows are used, as
    published for short sentences.

    Args:
        query_size: Q.
        value_size: D; not used.
        places: the largest number of places.

    Raises:
        InputError: if a grid has more places than that.
    """

    by_content = False

    def __init__(self, query_size: int, value_size: int, places: int = 196) -> None:
        super().__init__()
        if places < 1:
            raise InputError(f"places is {places}; the location-based score needs at least 1")
        self.energy = Linear(query_size, places, bias=False)

    def check_places(self, places: int) -> None:
        if places > self.energy.out_features:
            raise InputError(
                f"the location-based score has {self.energy.out_features} places, but the grid has {places}; "
                f"set its option places to at least {places}"
            )

    def keys(self, values: Tensor) -> Tensor:
        return values[..., :0]  # no features of the values, but still one row per place

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.energy(query)[..., : keys.shape[1]]
