"""The additive score e = vᵀ tanh(W q + U k + b) without a tanh.

The cost of additive attention is one tanh per place, hidden unit and step. But tanh(x) = 1 − 2 / (1 + e^2x), and
e^2(q + k) = e^2q e^2k, where the second factor depends only on the image. It is computed once, instead of U k + b, and
each step then needs a product and a reciprocal instead of the tanh. To avoid overflow, W q and U k + b are clamped to
±40, far beyond usual values.
"""

from typing import Any

import torch
from torch import Tensor

from visattn.fast import enabled


def is_used() -> bool:
    """Whether to use it; not in exported graphs, whose batch size, and so the number of pieces, is unknown."""
    return enabled() and not torch.compiler.is_exporting()


def prepared(x: Tensor) -> Tensor:
    """e^2x of U k + b (B, L, A) or of W q; in float32 if half precision would overflow."""
    x = x.float() if x.dtype == torch.float16 else x
    return (2 * x.clamp(-40, 40)).exp()


def scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """vᵀ tanh(W q + U k + b) (B, K, L) from W q (B, K, A), `prepared` keys (B, L, A) and v (A,)."""
    factor = prepared(query)
    weight = weight.to(torch.promote_types(factor.dtype, keys.dtype))
    with torch.autocast(query.device.type, enabled=False):  # one precision, forward and backward
        return weight.sum() - 2 * _SumOfHalves.apply(factor, keys, weight)


class _SumOfHalves(torch.autograd.Function):
    """Σ v h (B, K, L) from e^2q (B, K, A), e^2k (B, L, A), v (A,); h = (1 − tanh(q + k)) / 2 = 1 / (1 + e^2q e^2k).

    Written by hand because (B, K, L, A) is large. It is computed in pieces, which fit into the cache on a CPU, and not
    stored: recomputing it in the backward pass is faster than reading it from memory. Sums are in float32 at least;
    ∂h/∂e^2k = −e^2q h², and ∂h/∂e^2q = −e^2k h² = (h² − h) / e^2q, whose sums over the places are matrix products.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys, weight)
        pieces, dtype = _pieces(query, keys), torch.promote_types(query.dtype, torch.float32)
        parts = (whole.split(pieces) for whole in (query, keys))
        sums = []
        for q, k in zip(*parts, strict=True):
            inverse = _inverse(q.to(dtype), k.to(dtype))
            sums.append(torch.div(weight, inverse, out=inverse).sum(dim=-1))  # h @ v is three times as slow in MKL
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
            half = _inverse(q, k).reciprocal_()
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


def _inverse(query: Tensor, keys: Tensor) -> Tensor:
    """1 / h = 1 + e^2q e^2k (B, K, L, A) from e^2q (B, K, A) and e^2k (B, L, A)."""
    return torch.addcmul(query.new_ones(()), query.unsqueeze(2), keys.unsqueeze(1))


def _pieces(query: Tensor, keys: Tensor) -> int:
    """Number of images per piece: about two megabytes on a CPU, all on other devices."""
    if query.device.type != "cpu":
        return max(1, len(query))
    return max(1, 2**19 // max(1, query.shape[1] * keys.shape[1] * query.shape[2]))
