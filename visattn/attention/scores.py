"""How well does a place fit the query? One class a score, each named by its paper.

A score projects the values once (`keys`) and compares them with the query at every step. Sizes come first in every
constructor: that of the query (Q) and that of the values (D). All but the location-based one judge a place by what is
there, so they can also be given some of the places alone.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.fast.linear import Linear


class Score(nn.Module):
    """The contract: `keys` once per image, `forward` at every step.

    Attributes:
        by_content: whether a place is judged by its key, so that any L of the places may be scored by themselves.
    """

    by_content = True

    def check_places(self, places: int) -> None:
        """Raise an `InputError` where so many places cannot be scored."""

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) values to (B, L, A) keys."""
        raise NotImplementedError

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries (B, K, Q), K of each image, and keys (B, L, A) to scores (B, K, L), before the softmax."""
        raise NotImplementedError


class AdditiveScore(Score):
    """e = vᵀ tanh(W q + U k + b): Bahdanau 2014, appendix A.1.2; the multilayer perceptron of Xu 2015, eq. 4.

    Also Luong's "concat" (2015, eq. 8), whose W[q; k] is the same sum of two products.

    A tanh for each place, hidden unit and step is what additive attention costs. But tanh(x) = 1 − 2 / (1 + e^2x), and
    e^2(q + k) = e^2q e^2k, whose second factor depends on the image alone: it is what is kept as keys, and a step has a
    product and a reciprocal in place of the tanh. So that no factor overflows, W q and U k + b are cut at ±40, far
    beyond what a hidden unit comes to.

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
        return _squared_exponential(self.key(values))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        factor = _squared_exponential(self.query(query))
        weight = self.energy.weight[0].to(torch.promote_types(factor.dtype, keys.dtype))
        with torch.autocast(query.device.type, enabled=False):  # one precision, forward and backward
            if torch.compiler.is_exporting():  # a graph for any batch: pieces are counted when it runs, if at all
                return weight.sum() - 2 * (_halves(factor, keys) @ weight)
            return weight.sum() - 2 * _SumOfHalves.apply(factor, keys, weight)


class _SumOfHalves(torch.autograd.Function):
    """e^2q (B, K, A), e^2k (B, L, A), v (A,) to Σ v h (B, K, L), where h = (1 − tanh(q + k)) / 2 = 1 / (1 + e^2q e^2k).

    By hand, because (B, K, L, A) is large. It is worked through in pieces, on a CPU of a size that stays in the cache,
    and nothing of it is kept: the backward pass makes it again, which takes less time than to fetch it from memory.
    Sums are in float32 at least; ∂h/∂e^2k = −e^2q h², and ∂h/∂e^2q = −e^2k h² = (h² − h) / e^2q, whose sums over the
    places are products of matrices.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys, weight)
        pieces, dtype = _pieces(query, keys), torch.promote_types(query.dtype, torch.float32)
        parts = (whole.split(pieces) for whole in (query, keys))
        sums = []
        for q, k in zip(*parts, strict=True):
            inverse = _inverse(q.to(dtype), k.to(dtype))
            sums.append(torch.div(weight, inverse, out=inverse).sum(dim=-1))  # h @ v took three times as long in MKL
        return torch.cat(sums).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, keys, weight = ctx.saved_tensors
        pieces, dtype = _pieces(query, keys), torch.promote_types(query.dtype, torch.float32)
        of_query, of_keys = torch.empty_like(query), torch.empty_like(keys)
        of_weight = torch.zeros_like(weight, dtype=dtype)
        whole = (query, keys, gradient, of_query, of_keys)
        for q, k, g, into_query, into_keys in zip(*(one.split(pieces) for one in whole), strict=True):
            q, k, g = q.to(dtype), k.to(dtype), g.to(dtype)
            half = _halves(q, k)
            row = g.unsqueeze(2)
            first = (row @ half).squeeze(2)  # Σ g h over the places
            of_weight += first.sum(dim=(0, 1))
            half.square_()
            second = (row @ half).squeeze(2)  # Σ g h²
            into_query.copy_((second - first).mul_(weight).div_(q))
            half.mul_(g.unsqueeze(3))
            factor = (q * -weight).unsqueeze(2)
            if half.shape[1] == 1:
                torch.mul(half, factor, out=into_keys.unsqueeze(1))
            else:
                into_keys.copy_(half.mul_(factor).sum(dim=1))
        return of_query, of_keys, of_weight.to(weight.dtype)


def _halves(query: Tensor, keys: Tensor) -> Tensor:
    """e^2q (B, K, A), e^2k (B, L, A) to h (B, K, L, A)."""
    return _inverse(query, keys).reciprocal_()


def _inverse(query: Tensor, keys: Tensor) -> Tensor:
    """e^2q (B, K, A), e^2k (B, L, A) to 1 / h = 1 + e^2q e^2k (B, K, L, A)."""
    return torch.addcmul(query.new_ones(()), query.unsqueeze(2), keys.unsqueeze(1))


def _pieces(query: Tensor, keys: Tensor) -> int:
    """Images in a piece: about two megabytes on a CPU, all elsewhere."""
    if query.device.type != "cpu":
        return max(1, len(query))
    return max(1, 2**19 // max(1, query.shape[1] * keys.shape[1] * query.shape[2]))


def _squared_exponential(x: Tensor) -> Tensor:
    """e^2x; in float32 where half precision would overflow."""
    x = x.float() if x.dtype == torch.float16 else x
    return (2 * x.clamp(-40, 40)).exp()


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
        return query @ keys.to(query.dtype).transpose(1, 2)


class ScaledDotScore(DotScore):
    """e = qᵀ k / √Q: Vaswani 2017, eq. 1; the scale keeps the softmax away from saturation in large sizes."""

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
    """e = W q: Luong 2015, eq. 7; from the query alone, whatever is at the places.

    W has a row for each place in reading order; of a smaller grid or a shorter sequence the first rows are used, as
    published for short sentences.

    Args:
        query_size: Q.
        value_size: D; not looked at.
        places: the largest number of places.

    Raises:
        InputError: where a grid has more places than that.
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
                f"the location-based score was made for {self.energy.out_features} places and the grid has {places}; "
                f"set its option places to at least {places}"
            )

    def keys(self, values: Tensor) -> Tensor:
        return values[..., :0]  # nothing of the values, but still a row for each place

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.energy(query)[..., : keys.shape[1]]
