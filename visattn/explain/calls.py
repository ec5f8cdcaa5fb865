"""Calls of attention that were intercepted, and the weights of each.

Axis letters: B images, or pieces of images such as windows, those of the first image first; N queries, M keys, d the
size of one head's part.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from visattn.fast.bfloat16 import bfloat16_products

CHECKED_ROWS, CHECKED_PIECES = 4, 2
FEW_ROWS = 16


class FusedAttention(NamedTuple):
    """One attention call through the fused kernel: out = softmax(query keyᵀ · scale + mask) value.

    Attributes:
        query: (B, heads, N, d).
        key: (B, heads, M, d).
        value: (B, heads, M, d′).
        mask: broadcastable to (B, heads, N, M): bool, True if attention is allowed, or added to the scores; or None.
        scale: of the scores.
        out: (B, heads, N, d′) or as the block shaped it, the tensor that the block continued with; gradients are taken
            with respect to it.
        layout: of `out`, as `in_pieces` takes it.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    out: Tensor
    layout: tuple[int, int] = (1, 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, heads, N, M)."""
        pieces, heads, queries, _ = self.query.shape
        return pieces, heads, queries, self.key.shape[2]

    @property
    def by_query(self) -> Tensor:
        """(B, heads, N, …): each row of it is made of one query, whatever the keys."""
        return self.query

    @torch.no_grad()
    def weights(
        self,
        rows: slice = slice(None),
        heads: Sequence[int] | slice = slice(None),
        into: Tensor | None = None,
    ) -> Tensor:
        """The weights (B, heads, rows, M), float32; rows sum to 1, or to 0 where the mask allows no key.

        Args:
            rows: of which queries.
            heads: which heads.
            into: a contiguous float32 tensor of that shape to write them to.

        Raises:
            RuntimeError: if some evenly spaced rows of some pieces do not reproduce the block's output.
        """
        with torch.autocast(self.query.device.type, enabled=False):
            # Cast to the output's type and back: under autocast the kernel received that, not the arguments.
            # Contiguous copies: the batched product is two to three times as fast as on the block's views.
            query, key = (
                x[:, heads].to(self.out.dtype).to(torch.float32, memory_format=torch.contiguous_format).contiguous()
                for x in (self.query[:, :, rows], self.key)
            )
            scores = query.new_empty(*query.shape[:3], key.shape[2]) if into is None else into
            few = scores.shape[2] < FEW_ROWS  # of which MKL is as fast
            with nullcontext() if few else bfloat16_products(query, self.out.dtype):
                left, right, out = query.flatten(0, 1), key.flatten(0, 1).mT, scores.flatten(0, 1)
                torch.baddbmm(out, left, right, beta=0, alpha=self.scale, out=out)
            if self.mask is not None:
                mask = self.mask.expand(self.shape)[:, :, rows][:, heads]
                if mask.dtype == torch.bool:
                    scores.masked_fill_(~mask, float("-inf"))
                else:
                    scores.add_(mask)
            weights = torch.softmax(scores, dim=-1, out=scores)
            if self.mask is not None:
                weights.nan_to_num_(nan=0.0)  # the kernel's output is 0 where no key is allowed; checked below
            self._check(weights, rows, heads)
        return weights

    def gradient(self, of_out: Tensor) -> Tensor:
        """∂y/∂A (B, heads, N, M), float32, from ∂y/∂out: since out = A value, it is ∂y/∂out valueᵀ, for each head."""
        with torch.no_grad(), torch.autocast(of_out.device.type, enabled=False):
            return in_pieces(of_out, self.layout).float() @ self.value.float().transpose(-2, -1)

    def _check(self, weights: Tensor, rows: slice, heads: Sequence[int] | slice) -> None:
        """Compare a few rows of a few pieces; what is allowed is relative to the largest value in these."""
        step, apart = max(1, weights.shape[2] // CHECKED_ROWS), max(1, len(weights) // CHECKED_PIECES)
        value = self.value[::apart, heads].float()
        out = in_pieces(self.out, self.layout)[::apart, :, rows][:, heads, ::step].float()
        error = (weights[::apart, :, ::step] @ value - out).abs().amax()
        eps = max(torch.finfo(dtype).eps for dtype in (self.out.dtype, weights.dtype))
        allowed = eps**0.5 * torch.maximum(value.abs().amax(), out.abs().amax())
        if not error <= allowed:
            raise RuntimeError(
                f"weights read from a block do not make its output: off by {error:.3g}, where rounding is at most "
                f"{allowed:.3g}; is there dropout?"
            )


class ExplicitAttention(NamedTuple):
    """An attention call whose weights the block computed itself, out = given value; it is used as `FusedAttention` is.

    Attributes:
        given: (B, heads, N, M), what values were multiplied by, before dropout: a softmax, and whatever the block made
            of it, such as mixtures over heads, whose rows need not sum to 1.
        value: (B, heads, M, d′).
        out: the tensor that the block continued with.
        layout: of `out`, as `in_pieces` takes it.
        transposed: whether out = valueᵀ givenᵀ.
    """

    given: Tensor
    value: Tensor
    out: Tensor
    layout: tuple[int, int] = (1, 1)
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, heads, N, M)."""
        pieces, heads, queries, keys = self.given.shape
        return pieces, heads, queries, keys

    @property
    def by_query(self) -> Tensor:
        """(B, heads, N, …): each row of it is made of one query, whatever the keys."""
        return self.given

    @torch.no_grad()
    def weights(
        self,
        rows: slice = slice(None),
        heads: Sequence[int] | slice = slice(None),
        into: Tensor | None = None,
    ) -> Tensor:
        """The weights (B, heads, rows, M), float32, a copy; arguments as in `FusedAttention.weights`."""
        chosen = self.given[:, :, rows][:, heads]
        return chosen.to(torch.float32, copy=True) if into is None else into.copy_(chosen)

    def gradient(self, of_out: Tensor) -> Tensor:
        """∂y/∂A (B, heads, N, M), float32, from ∂y/∂out."""
        with torch.no_grad(), torch.autocast(of_out.device.type, enabled=False):
            of_out = of_out.mT if self.transposed else of_out
            return in_pieces(of_out, self.layout).float() @ self.value.float().transpose(-2, -1)


class DifferentialAttention(NamedTuple):
    """Two fused calls with the same values, out = (A₁ − λ A₂) value; it is used as `FusedAttention` is.

    Ye et al. 2024, "Differential Transformer" (eq. 1). The weights may be negative, and their rows sum to 1 − λ.

    Attributes:
        first: gives A₁.
        second: gives A₂.
        share: λ, a single number.
        out: the tensor that the block continued with.
    """

    first: FusedAttention
    second: FusedAttention
    share: Tensor
    out: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, heads, N, M)."""
        return self.first.shape

    @property
    def value(self) -> Tensor:
        """(B, heads, M, d′)."""
        return self.first.value

    @property
    def by_query(self) -> Tensor:
        """(B, heads, N, …): each row of it is made of one query, whatever the keys."""
        return self.first.query

    @torch.no_grad()
    def weights(
        self,
        rows: slice = slice(None),
        heads: Sequence[int] | slice = slice(None),
        into: Tensor | None = None,
    ) -> Tensor:
        """A₁ − λ A₂ (B, heads, rows, M), float32; arguments as in `FusedAttention.weights`."""
        return self.first.weights(rows, heads, into).sub_(self.second.weights(rows, heads).mul_(self.share.float()))

    def gradient(self, of_out: Tensor) -> Tensor:
        """∂y/∂(A₁ − λ A₂) (B, heads, N, M), float32, from ∂y/∂out."""
        return self.first.gradient(of_out)


AttentionCall = FusedAttention | ExplicitAttention | DifferentialAttention


def in_pieces(x: Tensor, layout: tuple[int, int]) -> Tensor:
    """(…, N, d) as (B, heads, N, d): what leads beside the heads is images and pieces of them.

    Args:
        x: of two axes or more.
        layout: the axis of heads, and how many they are; of three axes the first counts pieces and heads together.
    """
    axis, heads = layout
    if x.dim() <= 3:
        return x.view(*(1,) * (3 - x.dim()), *x.shape).unflatten(0, (-1, heads))
    return x.movedim(axis, -3).flatten(0, -4)
