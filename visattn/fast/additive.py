"""The additive score e = vᵀ tanh(W q + U k + b) without a tanh.

A tanh for each place, hidden unit and step is what additive attention costs. But tanh(x) = 1 − 2 / (1 + e^2x), and
e^2(q + k) = e^2q e^2k, whose second factor depends on the image alone: it is computed once, instead of U k + b, and a
step has a product and a reciprocal instead of the tanh. So that no factor overflows, W q and U k + b are cut at ±40,
far beyond what a hidden unit comes to.
"""

from typing import Any

import torch
from torch import Tensor

from visattn.fast import enabled


def is_used() -> bool:
    """Whether scores are computed so. Not in an exported graph, whose batch is not known: it would count no pieces."""
    return enabled() and not torch.compiler.is_exporting()


def prepared(x: Tensor) -> Tensor:
    """U k + b (B, L, A), or W q, to its e^2x; in float32 if half precision would overflow."""
    x = x.float() if x.dtype == torch.float16 else x
    return (2 * x.clamp(-40, 40)).exp()


def scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """W q (B, K, A), `prepared` keys (B, L, A) and v (A,) to vᵀ tanh(W q + U k + b), (B, K, L)."""
    factor = prepared(query)
    weight = weight.to(torch.promote_types(factor.dtype, keys.dtype))
    with torch.autocast(query.device.type, enabled=False):  # one precision, forward and backward
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
    """e^2q (B, K, A), e^2k (B, L, A) to 1 / h = 1 + e^2q e^2k (B, K, L, A)."""
    return torch.addcmul(query.new_ones(()), query.unsqueeze(2), keys.unsqueeze(1))


def _pieces(query: Tensor, keys: Tensor) -> int:
    """Images in a piece: about two megabytes on a CPU, all elsewhere."""
    if query.device.type != "cpu":
        return max(1, len(query))
    return max(1, 2**19 // max(1, query.shape[1] * keys.shape[1] * query.shape[2]))
