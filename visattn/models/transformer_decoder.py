"""The transformer decoder (Vaswani 2017) with attention to places: parallel in training, cached in decoding."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, HeadsMemory, MultiHeadAttention, MultiHeadSelfAttention
from visattn.errors import InputError
from visattn.fast.linear import Linear
from visattn.models.decoder import Decoder
from visattn.models.positions import check_placed_size, placed, sinusoid
from visattn.models.vit import MLP
from visattn.vocabulary import PAD

Cache = tuple[Tensor, Tensor]  # keys and values of the words so far, (N, heads, t, d) each


class TransformerState(NamedTuple):
    """The state between two steps.

    Attributes:
        caches: each layer's keys and values of the words so far.
        t: the step number.
        memory: the memory of the images.
    """

    caches: tuple[Cache, ...]
    t: int
    memory: HeadsMemory

    def rows(self, captions: Tensor, images: Tensor | None = None) -> "TransformerState":
        """See `Decoder.init`."""
        caches = tuple((keys[captions], values[captions]) for keys, values in self.caches)
        return TransformerState(caches, self.t, self.memory if images is None else self.memory.rows(images))


class DecoderBlock(nn.Module):
    """Causal self-attention between words, attention to places, and an MLP.

    Vaswani 2017, section 3.1, but with layer norms at the input of each part (pre-norm). Dropout is applied to the
    output of each part.
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

    def forward(self, x: Tensor, memory: HeadsMemory) -> Tensor:
        """All words at once, fused: (N, T, S) to (N, T, S)."""
        x = self._hear(x)
        return self._finish(x, self.places.attend(self.norm2(x), memory))

    def glimpse(self, x: Tensor, memory: HeadsMemory) -> tuple[Tensor, Glimpse]:
        """`forward`, and the glimpse."""
        x = self._hear(x)
        glimpse = self.places.glimpses(self.norm2(x), memory)
        return self._finish(x, glimpse.context), glimpse

    def head_weights(self, x: Tensor, memory: HeadsMemory) -> Tensor:
        """(N, heads, T, L) the attention of `forward` to the places."""
        return self.places.head_weights(self.norm2(self._hear(x)), memory)

    def step(self, x: Tensor, memory: HeadsMemory, cache: Cache) -> tuple[Tensor, Glimpse, Cache]:
        """`glimpse` for only the next word: (N, S) to (N, S)."""
        heard, cache = self.words.step(self.norm1(x), cache)
        x = x + self.dropout(heard)
        glimpse = self.places(self.norm2(x), memory, 0)
        return self._finish(x, glimpse.context), glimpse, cache

    def _hear(self, x: Tensor) -> Tensor:
        """`x` after self-attention."""
        return x + self.dropout(self.words(self.norm1(x)))

    def _finish(self, x: Tensor, context: Tensor) -> Tensor:
        """`x` with the context from the places, after the MLP."""
        x = x + self.dropout(context)
        return x + self.dropout(self.mlp(self.norm3(x)))


class TransformerDecoder(Decoder):
    """Layers of causal self-attention and of cross-attention to the annotation vectors.

    The vectors of a convolutional map carry no position: they are projected to the decoder's size and normalised, and
    sinusoids of row and column are added (`grid_sinusoid`), for keys and values alike; any grid is supported. Each
    layer's cross keys and values are projected from them once per image. Words get the sinusoid of their position in
    the caption, whose length is not limited. Dropout is applied to words with their positions and to the output of each
    part of a layer, but not to attention weights, so that maps are exact in training too.

    The glimpse is that of one layer, `map_layer`: its weights, the mean over its heads, and the context computed from
    them; the other layers use fused attention. `head_maps` returns every head of every layer.

    Linear layers are initialised by Xavier's uniform distribution, embeddings by a normal distribution of variance
    1 / S; embeddings are multiplied by √S (Vaswani 2017, section 3.4).

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        size: S, of all vectors within; a multiple of 4.
        layers: number of blocks.
        heads: attention heads of each block; must divide `size`.
        mlp_ratio: hidden size of the MLP over S.
        dropout: see above.
        map_layer: the layer whose glimpse is returned, from 0; -1 is the last.

    Raises:
        InputError: if `size` is not a multiple of 4, or of the heads, or there is no such layer.
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
        map_layer: int = -1,
    ) -> None:
        super().__init__()
        check_placed_size("the decoder's size", size)
        if not -layers <= map_layer < layers:
            raise InputError(f"there is no map_layer {map_layer} among {layers} layers; the first is 0, the last -1")
        self.size = size
        self.map_layer = map_layer % layers
        self.project = Linear(value_size, size)
        self.norm_values = nn.LayerNorm(size)
        self.embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
        self.blocks = nn.ModuleList(DecoderBlock(size, heads, mlp_ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.out = Linear(size, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> HeadsMemory:
        """`keys` and `projected` (B, layers, heads, L, d) are each layer's; `values` stay the annotation vectors."""
        places = placed(self.norm_values(self.project(values)), grid)
        layers = [block.places.prepare(places, grid, mask) for block in self.blocks]
        # Stacked with the layers first, so that each layer's part is contiguous and no step copies it.
        keys = torch.stack([layer.keys for layer in layers]).transpose(0, 1)
        projected = torch.stack([layer.projected for layer in layers]).transpose(0, 1)
        return HeadsMemory(values, keys, grid, mask, projected=projected)

    def init(self, memory: HeadsMemory, captions: int = 1) -> TransformerState:
        images, layers, heads, _, size = memory.keys.shape
        nothing = memory.keys.new_empty(images * captions, heads, 0, size)
        return TransformerState(((nothing, nothing),) * layers, 0, memory)

    def step(self, state: TransformerState, token: Tensor) -> tuple[Tensor, Glimpse, TransformerState]:
        x, glimpses, caches = self._embed(token.unsqueeze(1), state.t).squeeze(1), [], []
        for (block, of_layer), cache in zip(self._layers(state.memory), state.caches, strict=True):
            x, glimpse, cache = block.step(x, of_layer, cache)
            glimpses.append(glimpse)
            caches.append(cache)
        state = TransformerState(tuple(caches), state.t + 1, state.memory)
        return self.out(self.norm(x)), glimpses[self.map_layer], state

    def forward(self, memory: HeadsMemory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        x = self._embed(tokens)
        for layer, (block, of_layer) in enumerate(self._layers(memory)):
            if layer == self.map_layer:
                x, glimpse = block.glimpse(x, of_layer)
            else:
                x = block(x, of_layer)
        return self.out(self.norm(x)), glimpse

    def logits(self, memory: HeadsMemory, tokens: Tensor) -> Tensor:
        """Only the logits of `forward` (N, T, V), with fused attention in every layer."""
        x = self._embed(tokens)
        for block, of_layer in self._layers(memory):
            x = block(x, of_layer)
        return self.out(self.norm(x))

    def head_maps(self, memory: HeadsMemory, tokens: Tensor) -> Tensor:
        """The weights of each head of each layer for previous words (N, T): (N, layers, heads, T, L), float32."""
        x, maps = self._embed(tokens), []
        for block, of_layer in self._layers(memory):
            maps.append(block.head_weights(x, of_layer))
            x = block(x, of_layer)
        return torch.stack(maps, dim=1)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Words (N, T), of which the first is at position `start`, to (N, T, S)."""
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        words = self.embedding(tokens) * self.size**0.5
        return self.dropout(words + sinusoid(positions, self.size).to(words.dtype))

    def _layers(self, memory: HeadsMemory) -> Iterator[tuple[DecoderBlock, HeadsMemory]]:
        """Each block with its part of the memory."""
        layers = zip(self.blocks, memory.keys.unbind(1), memory.projected.unbind(1), strict=True)
        for block, keys, projected in layers:
            yield block, replace(memory, keys=keys, projected=projected)
