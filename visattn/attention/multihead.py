"""Multi-head attention (Vaswani 2017, section 3.2.2): each head attends with its own part of the vectors.

Both classes have a fast path through fused kernels, and one that returns the exact weights; tests compare the two.
Further axis letters: N tokens, T queries, d = A / heads the size of one head's part.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import has_torch_function

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.general import attend
from visattn.errors import InputError
from visattn.fast import bfloat16
from visattn.fast.linear import Linear, linear


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(QKᵀ/√d) V by a fused kernel: PyTorch's, or `visattn.fast.bfloat16` where that is faster."""
    listened_to = has_torch_function((query,)) or torch.compiler.is_exporting()  # the kernel call is observed
    if bfloat16.is_used(query) and not listened_to:
        return bfloat16.attend(query, key, value, _before(query.shape[2], key) if causal else mask)[0]
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(QKᵀ/√d) V and the softmax, accumulated in float32 like the kernels; rounded where `_fused` rounds."""
    with torch.autocast(query.device.type, enabled=False):
        if bfloat16.is_used(query):
            return bfloat16.attend(query, key, value, mask, torch.float32)
        out, weights = attend(query.float(), key.float(), value.float(), mask)
    return out.to(value.dtype), weights


def _before(queries: int, key: Tensor) -> Tensor:
    """(N, M) True if a token of M is not after that of N."""
    return torch.ones(queries, key.shape[2], dtype=torch.bool, device=key.device).tril()


class MultiHeadSelfAttention(nn.Module):
    """Self-attention between tokens, with the parameter names of timm (`qkv`, `proj`), so that weights are compatible.

    `forward` is the fast path; `weights` returns its exact weights, `with_weights` does both; `first` is the fast path
    for the first token, `step` adds one token.

    Args:
        size: D, size of a token.
        heads: number of heads; must divide D.
        qkv_bias: whether queries, keys and values have a bias.
        causal: whether a token attends only to itself and earlier tokens, as in a decoder.

    Raises:
        InputError: if the heads do not divide the size.
    """

    def __init__(self, size: int, heads: int, qkv_bias: bool = True, causal: bool = False) -> None:
        super().__init__()
        if size % heads:
            raise InputError(f"{size} token features are not divisible by {heads} heads; choose a divisor of {size}")
        self.heads, self.causal = heads, causal
        self.qkv = Linear(size, 3 * size, bias=qkv_bias)
        self.proj = Linear(size, size)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) tokens to query, key and value, each (B, heads, N, d)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) tokens to (B, N, D)."""
        query, key, value = self._split(x)
        out = _fused(query, key, value, causal=self.causal)
        return self.proj(out.transpose(1, 2).flatten(2))

    def first(self, x: Tensor) -> Tensor:
        """The output of `forward` at the first token, (B, D), for example a class token; needs only its query."""
        size, (weight, bias) = x.shape[-1], (self.qkv.weight, self.qkv.bias)
        of_query, of_others = (None, None) if bias is None else bias.split((size, 2 * size))
        query = linear(x[:, :1], weight[:size], of_query).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        others = linear(x, weight[size:], of_others).unflatten(-1, (2, self.heads, -1))
        key, value = others.permute(2, 0, 3, 1, 4).unbind(0)
        out = _fused(query, key, value, causal=self.causal)
        return self.proj(out.flatten(1))

    def with_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `forward` together with the `weights`: (B, N, D) and (B, heads, N, N)."""
        query, key, value = self._split(x)
        out, weights = _attend(query, key, value, _before(x.shape[1], key) if self.causal else None)
        return self.proj(out.transpose(1, 2).flatten(2)), weights

    def step(self, x: Tensor, cache: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next token (B, D) of causal attention to (B, D), as `forward` computes it at that position.

        Args:
            x: (B, D) the token.
            cache: keys and values of the t tokens before it, (B, heads, t, d) each; t is 0 before the first.

        Returns:
            The output (B, D), and the cache with this token.
        """
        query, key, value = self._split(x.unsqueeze(1))
        keys, values = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        out, _ = _attend(query, keys, values)
        return self.proj(out.flatten(1)), (keys, values)

    def weights(self, x: Tensor) -> Tensor:
        """(B, N, D) tokens to the attention weights (B, heads, N, N), float32; each row sums to 1."""
        return self.with_weights(x)[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadsMemory(Memory):
    """A memory whose values are projected for each head; `keys` is (B, heads, L, d).

    Attributes:
        projected: (B, heads, L, d) a W^V.
    """

    projected: Tensor


class MultiHeadAttention(SpatialAttention):
    """Queries attend to places: "encoder-decoder attention" (Vaswani 2017, section 3.2.3), for one query or many.

    MultiHead = Concat(head₁, …) Wᴼ, headᵢ = softmax(Q Wᵢ^Q (a Wᵢ^K)ᵀ / √d) a Wᵢ^V. Keys a W^K and values a W^V are
    projected once per image. Each head's α multiplies its own part of these values; a glimpse's weights and focus are
    the mean of α over the heads, and `head_weights` returns those of each head.

    Args:
        query_size: Q, size of a query.
        value_size: D, size of an annotation vector and of the context.
        heads: number of heads; must divide `size`.
        size: A, size of keys and of projected values, all heads together; None uses Q.

    Raises:
        InputError: if the heads do not divide the size.
    """

    def __init__(self, query_size: int, value_size: int, heads: int = 4, size: int | None = None) -> None:
        super().__init__()
        size = size or query_size
        if size % heads:
            raise InputError(
                f"size {size} is not divisible by {heads} heads; choose another number of heads, or another size"
            )
        self.heads = heads
        self.query = Linear(query_size, size)
        self.key = Linear(value_size, size, bias=False)  # a constant would vanish in the softmax
        self.value = Linear(value_size, size)
        self.proj = Linear(size, value_size)

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) annotation vectors to (B, heads, L, d)."""
        return self._split(self.key(values)).contiguous()

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> HeadsMemory:
        """As in `SpatialAttention`, with projected values.

        Keys and projected values are contiguous by head, as their products need them, so that no step copies them.
        """
        memory, projected = super().prepare(values, grid, mask), self._split(self.value(values)).contiguous()
        return HeadsMemory(**vars(memory), projected=projected)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, A) to the heads' parts (B, heads, N, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, out: Tensor, queries: Tensor) -> Tensor:
        """(B, heads, K T, d) of the heads to (N, T, D), in the order of the queries."""
        return self.proj(out.transpose(1, 2).flatten(2)).reshape(*queries.shape[:2], -1)

    def _operands(self, queries: Tensor, memory: HeadsMemory) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Query (B, heads, K T, d), captions of an image together; key, value (B, heads, L, d); mask (B, 1, 1, L)."""
        mask = None if memory.mask is None else memory.mask[:, None, None]
        query = memory.per_image(self.query(queries)).flatten(1, 2)
        return self._split(query), memory.keys, memory.projected, mask

    def attend(self, queries: Tensor, memory: HeadsMemory) -> Tensor:
        """The fast path: queries (N, T, Q) to contexts (N, T, D)."""
        query, key, value, mask = self._operands(queries, memory)
        return self._join(_fused(query, key, value, mask), queries)

    def glimpses(self, queries: Tensor, memory: HeadsMemory) -> Glimpse:
        """Queries (N, T, Q) to the same contexts and the weights that made them, with a time axis."""
        out, weights = _attend(*self._operands(queries, memory))
        weights = weights.mean(dim=1).reshape(*queries.shape[:2], -1)
        return Glimpse.soft(self._join(out, queries), weights)

    def head_weights(self, queries: Tensor, memory: HeadsMemory) -> Tensor:
        """Queries (N, T, Q) to the weights of each head (N, heads, T, L), float32; each row sums to 1."""
        weights = _attend(*self._operands(queries, memory))[1]
        return weights.unflatten(2, (-1, queries.shape[1])).transpose(1, 2).flatten(0, 1)

    def contexts(self, weights: Tensor, memory: HeadsMemory) -> Tensor:
        """Contexts (N, T, D) for given weights of the heads (N, heads, T, L).

        With the weights from `head_weights`, the result of `attend`.
        """
        rows = memory.per_image(weights.transpose(1, 2))  # (B, K, T, heads, L)
        out = rows.flatten(1, 2).transpose(1, 2).to(memory.projected.dtype) @ memory.projected
        return self._join(out, rows.flatten(0, 1))

    def forward(self, query: Tensor, memory: HeadsMemory, t: int) -> Glimpse:
        return Glimpse(*(part.squeeze(1) for part in self.glimpses(query.unsqueeze(1), memory)))

    def terms(self, query: Tensor, memory: HeadsMemory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """As in `SpatialAttention`, by head: a place's vector is the head's part of its value, after the projection."""
        weights = self.head_weights(query.unsqueeze(1), memory).squeeze(2)
        proj = self.proj.weight.unflatten(1, (self.heads, -1))
        return weights, torch.einsum("bhld,ohd->bhlo", memory.projected, proj)
