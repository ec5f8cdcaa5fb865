"""Ablated attention: a mechanism whose α is changed before it multiplies the values.

Query and keys are unchanged; only the weights are: the total weight of a word stays the same, but no longer depends on
the content of the places. If captions are no worse for it, the maps explain nothing. Not used in training.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.multihead import HeadsMemory, MultiHeadAttention
from visattn.attention.sentinel import AttentionBeside
from visattn.attention.soft import context

# Weights (R, G, L) of R words to as many others; a word's G rows, of heads or of α and what was drawn from it, are
# changed alike. The mask (R, L) is True if a place may be attended, or None if all may.
Change = Callable[[Tensor, Tensor | None], Tensor]


class UniformWeights:
    """A `Change` that gives each unmasked place the same weight and keeps the sum of the row.

    A sampled place is replaced by the mean of all places.
    """

    def __call__(self, weights: Tensor, mask: Tensor | None) -> Tensor:
        allowed = torch.ones_like(weights[:, 0]) if mask is None else mask.to(weights.dtype)
        return weights.sum(dim=-1, keepdim=True) * (allowed / allowed.sum(dim=-1, keepdim=True)).unsqueeze(1)


class ShuffledWeights:
    """A `Change` that permutes the weights of each word among the unmasked places, with a new permutation per word.

    A sampled place is replaced by a random unmasked place.

    Args:
        seed: random seed of the sequence of permutations; use a new object for each measurement.
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
    """A mechanism whose context is Σᵢ focusᵢ aᵢ, with changed α and samples.

    The `log_prob` of a glimpse is 0, since it is not used for training.

    Args:
        mechanism: any mechanism without a class of its own below.
        change: the change of the weights.
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
        mixed = self.context(query, memory, focus, seen).to(seen.context.dtype)
        return Glimpse(mixed, weights, focus, nothing, seen.gate)

    def context(self, query: Tensor, memory: Memory, focus: Tensor, seen: Glimpse) -> Tensor:
        """(N, D) the context of changed weights; `seen` is the glimpse of those of the mechanism."""
        return context(focus, memory)


class AblatedBeside(Ablated):
    """Attention to the places and to one more vector, whose share does not change.

    Args:
        mechanism: the attention.
        change: the change of the weights of places.
    """

    mechanism: AttentionBeside

    def context(self, query: Tensor, memory: Memory, focus: Tensor, seen: Glimpse) -> Tensor:
        return self.mechanism.mixed(self.mechanism.beside(query, memory), memory, focus, seen.gate)


class AblatedHeads(Ablated):
    """Multi-head attention with changed weights; all heads of a word are changed alike.

    Args:
        mechanism: the multi-head attention.
        change: the change of the weights.
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
        """As `MultiHeadAttention.head_weights`; each call draws new permutations."""
        weights = self.mechanism.head_weights(queries, memory).transpose(1, 2)  # (N, T, heads, L)
        changed = self.change(weights.flatten(0, 1), _mask(memory, weights.shape[0] * weights.shape[1]))
        return changed.unflatten(0, weights.shape[:2]).transpose(1, 2)

    def forward(self, query: Tensor, memory: HeadsMemory, t: int) -> Glimpse:
        return Glimpse(*(part.squeeze(1) for part in self.glimpses(query.unsqueeze(1), memory)))


_KINDS: dict[type[SpatialAttention], type[Ablated]] = {
    MultiHeadAttention: AblatedHeads,
    AttentionBeside: AblatedBeside,
}


@contextmanager
def ablated(decoder: nn.Module, change: Change) -> Iterator[None]:
    """Temporarily change the weights of all attention of a decoder to an image.

    The layers of a Transformer are changed independently, with different permutations.

    Args:
        decoder: a decoder with `SpatialAttention` mechanisms; self-attention between words is not changed.
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
            kind = next((kind for of, kind in _KINDS.items() if isinstance(child, of)), Ablated)
            parent.add_module(name, kind(child, change))
        yield
    finally:
        for parent, name, child in found:
            parent.add_module(name, child)


def _mask(memory: Memory, rows: int) -> Tensor | None:
    """(rows, L) the mask of each row's image; the same number of consecutive rows per image."""
    return None if memory.mask is None else memory.mask.repeat_interleave(rows // len(memory.mask), dim=0)
