"""Recording of attention from outside: the arguments of PyTorch's fused kernel, and the weights they imply.

A fused kernel computes softmax(Q Kᵀ · scale + mask) V without storing the softmax. Here the kernel call is recorded
while the model runs unchanged: queries and keys are taken after everything the block does to them (norms, rotary
positions), with its mask and scale, so the same code works for all models. The weights are recomputed from them in
float32, and each time a few rows are multiplied by V and compared with the block's output.

Axis letters: B images, N queries, M keys, d the size of one head's part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

CHECKED_ROWS = 4


class Look(NamedTuple):
    """One attention operation of a block: out = softmax(query keyᵀ · scale + mask) value.

    Attributes:
        query: (B, heads, N, d).
        key: (B, heads, M, d).
        value: (B, heads, M, d′).
        mask: broadcastable to (B, heads, N, M): bool, True if attention is allowed, or added to the scores; or None.
        scale: of the scores.
        out: (B, heads, N, d′), the tensor that the block used; gradients are taken with respect to it.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    out: Tensor

    @torch.no_grad()
    def weights(
        self, rows: slice = slice(None), heads: list[int] | slice = slice(None), into: Tensor | None = None
    ) -> Tensor:
        """The weights (B, heads, rows, M), float32; rows sum to 1.

        Args:
            rows: of which queries.
            heads: which heads.
            into: a contiguous float32 tensor of that shape to write them to.

        Raises:
            RuntimeError: if some evenly spaced rows of the result do not reproduce the block's output.
        """
        with torch.autocast(self.query.device.type, enabled=False):
            # Cast to the output's type and back: under autocast the kernel received that, not the arguments.
            # Contiguous copies: the batched product is two to three times as fast as on the block's views.
            query, key = (x[:, heads].to(self.out.dtype).float() for x in (self.query[:, :, rows], self.key))
            query, key = query.mul(self.scale).contiguous(), key.contiguous()
            scores = query.new_empty(*query.shape[:3], key.shape[2]) if into is None else into
            torch.bmm(query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), out=scores.flatten(0, 1))
            if self.mask is not None:
                mask = self.mask.expand(*self.query.shape[:3], self.key.shape[2])[:, :, rows][:, heads]
                if mask.dtype == torch.bool:
                    scores.masked_fill_(~mask, float("-inf"))
                else:
                    scores.add_(mask)
            weights = torch.softmax(scores, dim=-1, out=scores)
            self._check(weights, rows, heads)
        return weights

    def gradient(self, of_out: Tensor) -> Tensor:
        """∂y/∂A (B, heads, N, M), float32, from ∂y/∂out: since out = A value, it is ∂y/∂out valueᵀ, for each head."""
        with torch.no_grad(), torch.autocast(of_out.device.type, enabled=False):
            return of_out.float() @ self.value.float().transpose(-2, -1)

    def _check(self, weights: Tensor, rows: slice, heads: list[int] | slice) -> None:
        step = max(1, weights.shape[2] // CHECKED_ROWS)
        value, out = self.value[:, heads].float(), self.out[:, :, rows][:, heads, ::step].float()
        error = (weights[:, :, ::step] @ value - out).abs().amax()
        eps = max(torch.finfo(dtype).eps for dtype in (self.out.dtype, weights.dtype))
        allowed = eps**0.5 * value.abs().amax()
        if not error <= allowed:
            raise RuntimeError(
                f"weights read from a block do not make its output: off by {error:.3g}, where rounding is at most "
                f"{allowed:.3g}; is there dropout?"
            )


def _look(
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Look:
    """A call of `scaled_dot_product_attention`, with its argument names, as a `Look`."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return Look(query.detach(), key.detach(), value.detach(), attn_mask, scale, out)


class _Overheard(TorchFunctionMode):
    """Passes every call of `scaled_dot_product_attention` to a listener, after it has returned."""

    def __init__(self, hear: Callable[[Look], None]) -> None:
        super().__init__()
        self.hear = hear

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is F.scaled_dot_product_attention:
            self.hear(_look(out, *args, **(kwargs or {})))
        return out


@contextmanager
def overheard(model: nn.Module, hear: Callable[[Look], None]) -> Iterator[None]:
    """Context in which `hear` is called for each attention operation of `model`, in order.

    Blocks of timm that would not use the fused kernel, for example with `TIMM_FUSED_ATTN=0`, use it in this context.
    """
    unfused: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", True) is False]
    for module in unfused:
        module.fused_attn = True
    try:
        with _Overheard(hear):
            yield
    finally:
        for module in unfused:
            module.fused_attn = False
