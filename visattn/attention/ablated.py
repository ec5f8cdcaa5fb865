"""Ablated attention: a mechanism whose α is changed before it multiplies the values.

The mechanism reads query and keys as ever, and what is changed are its weights alone: how much a word takes from the
places in all stays, only from where is taken away. If captions are none the worse for it, the maps explain nothing.
Nothing is trained so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.multihead import HeadsMemory, MultiHeadAttention
from visattn.attention.soft import context

# Weights (R, G, L) of R words to as many others; a word's G rows, of heads or of α and what was drawn from it, are
# changed alike. The mask (R, L) is True where a place may be attended, or None where all may.
Change = Callable[[Tensor, Tensor | None], Tensor]


class UniformWeights:
    """A `Change`: each place that may be attended gets the same, and the sum of the row stays.

    Where a place was drawn, the mean of all places is seen instead.
    """

    def __call__(self, weights: Tensor, mask: Tensor | None) -> Tensor:
        allowed = torch.ones_like(weights[:, 0]) if mask is None else mask.to(weights.dtype)
        return weights.sum(dim=-1, keepdim=True) * (allowed / allowed.sum(dim=-1, keepdim=True)).unsqueeze(1)


class ShuffledWeights:
    """A `Change`: the weights of each word move to other places that may be attended, by a permutation of its own.

    Where a place was drawn, another one, of all that may be attended, is seen instead.

    Args:
        seed: of the permutations, which are drawn one after the other; begin each measurement with a new object.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, weights: Tensor, mask: Tensor | None) -> Tensor:
        rows, _, places = weights.shape
        keys = torch.rand(rows, places, generator=self.generator).to(weights.device)
        home = torch.arange(places, device=weights.device).expand(rows, places)
        if mask is not None:  # places that may be attended come first in both, so that they change among themselves
            keys = keys.masked_fill(~mask, 2)
            home = (~mask).to(torch.uint8).argsort(dim=-1, stable=True)
        away = keys.argsort(dim=-1)
        return torch.empty_like(weights).scatter(
            2, home.unsqueeze(1).expand_as(weights), weights.gather(2, away.unsqueeze(1).expand_as(weights))
        )


class Ablated(SpatialAttention):
    """A mechanism whose context is Σᵢ focusᵢ aᵢ, with α and what was drawn from it changed.

    A glimpse's `log_prob` is 0: nothing is to be learnt from it.

    Args:
        mechanism: any but the multi-head one, which is for `AblatedHeads`.
        change: of the weights.
    """

    def __init__(self, mechanism: SpatialAttention, change: Change) -> None:
        super().__init__()
        self.mechanism, self.change = mechanism, change
        self.training = mechanism.training

    def check_grid(self, grid: tuple[int, int]) -> None:
        self.mechanism.check_grid(grid)

    def keys(self, values: Tensor) -> Tensor:
        return self.mechanism.keys(values)

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        return self.mechanism.prepare(values, grid, mask)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        seen = self.mechanism(query, memory, t)
        rows = torch.stack([seen.weights, seen.focus], dim=1)
        weights, focus = self.change(rows, _mask(memory, len(query))).unbind(dim=1)
        nothing = torch.zeros_like(seen.log_prob)
        return Glimpse(context(focus, memory).to(seen.context.dtype), weights, focus, nothing, seen.gate)


class AblatedHeads(Ablated):
    """Multi-head attention with the weights of its heads changed, all heads of a word alike.

    Args:
        mechanism: whose heads they are.
        change: of the weights.
    """

    mechanism: MultiHeadAttention

    def attend(self, queries: Tensor, memory: HeadsMemory) -> Tensor:
        """As `MultiHeadAttention.attend`."""
        return self.glimpses(queries, memory).context

    def glimpses(self, queries: Tensor, memory: HeadsMemory) -> Glimpse:
        """As `MultiHeadAttention.glimpses`."""
        weights = self.head_weights(queries, memory)
        return Glimpse.soft(self.mechanism.contexts(weights, memory), weights.mean(dim=1))

    def head_weights(self, queries: Tensor, memory: HeadsMemory) -> Tensor:
        """As `MultiHeadAttention.head_weights`; of a shuffle each call draws its own."""
        weights = self.mechanism.head_weights(queries, memory).transpose(1, 2)  # (N, T, heads, L)
        changed = self.change(weights.flatten(0, 1), _mask(memory, weights.shape[0] * weights.shape[1]))
        return changed.unflatten(0, weights.shape[:2]).transpose(1, 2)

    def forward(self, query: Tensor, memory: HeadsMemory, t: int) -> Glimpse:
        return Glimpse(*(part.squeeze(1) for part in self.glimpses(query.unsqueeze(1), memory)))


@contextmanager
def ablated(decoder: nn.Module, change: Change) -> Iterator[None]:
    """A decoder all of whose looks at an image have their weights changed, for a while; then it is as it was.

    A Transformer's layers each look by themselves: a shuffle moves their weights by different permutations.

    Args:
        decoder: whose mechanisms are `SpatialAttention`s; what words attend to in words is left alone.
        change: `UniformWeights()`, `ShuffledWeights(seed)`, or another.

    Raises:
        ValueError: if it has no such mechanism.
    """
    found = [
        (parent, name, child)
        for parent in decoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, SpatialAttention)
    ]
    if not found:
        raise ValueError(f"{type(decoder).__name__} has no attention to places that could be ablated")
    try:
        for parent, name, child in found:
            kind = AblatedHeads if isinstance(child, MultiHeadAttention) else Ablated
            parent.add_module(name, kind(child, change))
        yield
    finally:
        for parent, name, child in found:
            parent.add_module(name, child)


def _mask(memory: Memory, rows: int) -> Tensor | None:
    """(rows, L) the mask of the image that each row looks at; as many rows of each image, one after the other."""
    return None if memory.mask is None else memory.mask.repeat_interleave(rows // len(memory.mask), dim=0)
