"""Multi-head self-attention: each head compares all places with all, in its own part of the vectors."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from visattn.errors import InputError


def _kernel(query: Tensor) -> AbstractContextManager:
    """PyTorch's choice, but for training in bfloat16 on a CPU.

    There the fused kernel's backward pass is slow for short sequences: forward and backward of (128, 4, 65, 32) took
    174 ms fused and 64 ms unfused (PyTorch 2.15, AMD EPYC, two cores that were busy with other work, one run); in
    float32 the fused one won, 102 to 178 ms.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class MultiHeadSelfAttention(nn.Module):
    """Vaswani 2017, section 3.2.2, with the parameter names of timm (`qkv`, `proj`), so that weights interchange.

    `forward` is the fast path (fused kernels); `weights` says exactly what it attends to. A test holds them together.

    Args:
        size: D, size of a token.
        heads: number of heads; must divide D.

    Raises:
        InputError: where the heads do not divide the size.
    """

    def __init__(self, size: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if size % heads:
            raise InputError(f"{heads} heads do not divide tokens of size {size}; choose a divisor of {size}")
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size, bias=qkv_bias)
        self.proj = nn.Linear(size, size)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) tokens to query, key and value, each (B, heads, N, D / heads)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) tokens to (B, N, D)."""
        query, key, value = self._split(x)
        with _kernel(query):
            out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """(B, N, D) tokens to the attention weights (B, heads, N, N), float32; each row sums to 1."""
        query, key, _ = self._split(x)
        scores = query.float() @ key.float().transpose(-2, -1) / query.shape[-1] ** 0.5
        return torch.softmax(scores, dim=-1)
