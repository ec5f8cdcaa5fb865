"""Sequence tasks whose true alignment is known: reversal, and copying into another alphabet."""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from visattn.vocabulary import END, PAD, SPECIALS, START

LENGTHS = (5, 12)  # minimum and maximum length of sequences
Split = Literal["train", "test"]


class Batch(NamedTuple):
    """Sequences of several lengths; S and T are the greatest possible lengths of source and target.

    Attributes:
        source: (B, S) indices of source symbols.
        mask: (B, S) bool, True up to a sequence's end.
        tokens: (B, T + 2) START, the target, END, and PAD.
        truth: (B, T, S) bool, True at the places that a target symbol comes from.
    """

    source: Tensor
    mask: Tensor
    tokens: Tensor
    truth: Tensor

    @property
    def places(self) -> Tensor:
        """(B, T) the first true place of each target symbol; −1 if it has none, or beyond the end."""
        return self.truth.int().argmax(dim=-1).masked_fill(~self.truth.any(dim=-1), -1)


class Task(Protocol):
    """A sequence task: how to sample sequences, and how to write them."""

    @property
    def title(self) -> str:
        """For display."""

    @property
    def source(self) -> str:
        """The alphabet of sources."""

    @property
    def target(self) -> str:
        """The alphabet of targets."""

    @property
    def longest(self) -> int:
        """S."""

    def batch(self, count: int, generator: torch.Generator, split: Split = "train") -> Batch:
        """Sample `count` sequences and their targets."""


class Reordering(NamedTuple):
    """Each target symbol stands for one source symbol. Sequences are random; the splits differ by their generators.

    Attributes:
        title: for display.
        source: the alphabet.
        target: the target symbol of each, in the same order.
        backwards: whether the order is reversed.
        lengths: minimum and maximum length of sequences.
    """

    title: str
    source: str
    target: str
    backwards: bool
    lengths: tuple[int, int] = LENGTHS

    @property
    def longest(self) -> int:
        """S."""
        return self.lengths[1]

    def batch(self, count: int, generator: torch.Generator, split: Split = "train") -> Batch:
        """See `Task.batch`."""
        shortest, longest = self.lengths
        length = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
        source = torch.randint(len(self.source), (count, longest), generator=generator)
        t = torch.arange(longest).expand(count, -1)
        mask = t < length
        places = (length - 1 - t if self.backwards else t).masked_fill(~mask, -1)
        tokens = torch.full((count, longest + 2), PAD)
        tokens[:, 0] = START
        tokens[:, 1:-1] = (len(SPECIALS) + source.gather(1, places.clamp(min=0))).masked_fill(~mask, PAD)
        truth = places.unsqueeze(2) == torch.arange(longest)
        return Batch(source, mask, tokens.scatter(1, length + 1, END), truth)


REORDERINGS = {
    "reversal": Reordering("Reversal: the last symbol first", "abcdefghijklmnop", "abcdefghijklmnop", backwards=True),
    "copying": Reordering("Copying into another alphabet", "abcdefghijklmnop", "αβγδεζηθικλμνξοπ", backwards=False),
}
