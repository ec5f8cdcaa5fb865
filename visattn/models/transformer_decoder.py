"""The transformer's decoder (Vaswani 2017) over an image's places: parallel in training, cached in decoding."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, Memory, MultiHeadAttention, MultiHeadSelfAttention
from visattn.errors import InputError
from visattn.models.decoder import Decoder
from visattn.models.vit import MLP
from visattn.vocabulary import PAD

Cache = tuple[Tensor, Tensor]  # keys and values of the words so far, (B, heads, t, d) each


def sinusoid(positions: Tensor, size: int) -> Tensor:
    """Positions (N,) to (N, size), an even number: sin(p / 10000^(2i / size)) in 2i, the cosine in 2i + 1.

    Vaswani 2017, section 3.5.
    """
    angles = positions.unsqueeze(-1) / 10000 ** (torch.arange(0, size, 2, device=positions.device) / size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def grid_sinusoid(grid: tuple[int, int], size: int, device: torch.device | None = None) -> Tensor:
    """(H, W, size) of a grid of (H, W) places: `sinusoid` of the row in the first half, of the column in the second.

    Rows and columns are counted from the upper left, in places, so that a larger grid has the same vectors there.
    """
    row, column = (sinusoid(torch.arange(n, device=device), size // 2) for n in grid)
    return torch.cat([row[:, None].expand(*grid, -1), column.expand(*grid, -1)], dim=-1)


class TransformerState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        caches: each layer's keys and values of the words so far.
        t: the number of the step.
        memory: the image's.
    """

    caches: tuple[Cache, ...]
    t: int
    memory: Memory

    def rows(self, index: Tensor) -> "TransformerState":
        """The states of `index` (N,)."""
        caches = tuple((keys[index], values[index]) for keys, values in self.caches)
        return TransformerState(caches, self.t, self.memory.rows(index))


class DecoderBlock(nn.Module):
    """A word attends to itself and the words before it, then to the places, then it goes through an MLP.

    Vaswani 2017, section 3.1, but with each layer norm in front of what it belongs to (pre-norm). Dropout is on what is
    added to x.
    """

    def __init__(self, size: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.words = MultiHeadSelfAttention(size, heads, causal=True)
        self.norm2 = nn.LayerNorm(size)
        self.places = MultiHeadAttention(size, size, heads)
        self.norm3 = nn.LayerNorm(size)
        self.mlp = MLP(size, int(size * mlp_ratio))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """All words at once, fused: (B, T, S) to (B, T, S)."""
        x = self._hear(x)
        return self._think(x, self.places.attend(self.norm2(x), memory))

    def glimpse(self, x: Tensor, memory: Memory) -> tuple[Tensor, Glimpse]:
        """`forward`, and what was seen."""
        x = self._hear(x)
        glimpse = self.places.glimpses(self.norm2(x), memory)
        return self._think(x, glimpse.context), glimpse

    def head_weights(self, x: Tensor, memory: Memory) -> Tensor:
        """(B, heads, T, L) with what weights `forward` looks at the places."""
        return self.places.head_weights(self.norm2(self._hear(x)), memory)

    def step(self, x: Tensor, memory: Memory, cache: Cache) -> tuple[Tensor, Glimpse, Cache]:
        """`glimpse` of the next word alone: (B, S) to (B, S)."""
        heard, cache = self.words.step(self.norm1(x), cache)
        x = x + self.dropout(heard)
        glimpse = self.places(self.norm2(x), memory, 0)
        return self._think(x, glimpse.context), glimpse, cache

    def _hear(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.words(self.norm1(x)))

    def _think(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.dropout(context)
        return x + self.dropout(self.mlp(self.norm3(x)))


class TransformerDecoder(Decoder):
    """Layers of causal self-attention and of cross-attention to the annotation vectors.

    The vectors of a convolutional map do not say where they are: they are projected to the decoder's size, normalised,
    and the sinusoids of row and column are added (`grid_sinusoid`), for keys and values alike; any grid will do. Each
    layer's cross keys and values are projected from that once per image. Words get the sinusoid of their place in the
    caption, which has no greatest length. Dropout is on words with their positions and on what each part of a layer
    adds; weights of attention have none, so the maps are what the output was made of in training too.

    A glimpse is the last layer's, whose context is the last of the image that enters the words: weights are the mean
    over its heads; `head_maps` has every head of every layer. Linear layers start from Xavier's uniform distribution,
    embeddings from a normal one of variance 1 / S; they enter times √S (Vaswani 2017, section 3.4).

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        size: S, of all vectors within; a multiple of 4.
        layers: number of blocks.
        heads: attention heads of each block; must divide `size`.
        mlp_ratio: hidden size of the MLP over S.
        dropout: see above.

    Raises:
        InputError: where `size` is not a multiple of 4, or of the heads.
    """

    def __init__(
        self,
        vocabulary_size: int,
        value_size: int,
        size: int = 512,
        layers: int = 3,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if size % 4:
            raise InputError(
                f"a decoder of size {size} cannot hold positions of rows and columns; choose a multiple of 4"
            )
        self.size = size
        self.project = nn.Linear(value_size, size)
        self.norm_values = nn.LayerNorm(size)
        self.embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
        self.blocks = nn.ModuleList(DecoderBlock(size, heads, mlp_ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """`keys` (B, L, layers · 2 S) hold each layer's keys and values; `values` stay the annotation vectors."""
        places = self.norm_values(self.project(values)).unflatten(1, grid)
        places = (places + grid_sinusoid(grid, self.size, values.device)).flatten(1, 2)
        return Memory(values, torch.cat([block.places.keys(places) for block in self.blocks], dim=-1), grid, mask)

    def init(self, memory: Memory) -> TransformerState:
        heads = self.blocks[0].words.heads
        nothing = memory.keys.new_empty(len(memory.keys), heads, 0, self.size // heads)
        return TransformerState(((nothing, nothing),) * len(self.blocks), 0, memory)

    def step(self, state: TransformerState, token: Tensor) -> tuple[Tensor, Glimpse, TransformerState]:
        x, caches = self._embed(token.unsqueeze(1), state.t).squeeze(1), []
        for block, memory, cache in zip(self.blocks, self._layers(state.memory), state.caches, strict=True):
            x, glimpse, cache = block.step(x, memory, cache)
            caches.append(cache)
        return self.out(self.norm(x)), glimpse, TransformerState(tuple(caches), state.t + 1, state.memory)

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        x = self._embed(tokens)
        *before, last = zip(self.blocks, self._layers(memory), strict=True)
        for block, own in before:
            x = block(x, own)
        block, own = last
        x, glimpse = block.glimpse(x, own)
        return self.out(self.norm(x)), glimpse

    def head_maps(self, memory: Memory, tokens: Tensor) -> Tensor:
        """The weights of each head of each layer for previous words (B, T): (B, layers, heads, T, L), float32."""
        x, maps = self._embed(tokens), []
        for block, own in zip(self.blocks, self._layers(memory), strict=True):
            maps.append(block.head_weights(x, own))
            x = block(x, own)
        return torch.stack(maps, dim=1)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Words (B, T), the first of which is number `start`, to (B, T, S)."""
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.dropout(self.embedding(tokens) * self.size**0.5 + sinusoid(positions, self.size))

    def _layers(self, memory: Memory) -> list[Memory]:
        """The memory as each layer's cross-attention knows it."""
        return [memory._replace(keys=keys) for keys in memory.keys.chunk(len(self.blocks), dim=-1)]
