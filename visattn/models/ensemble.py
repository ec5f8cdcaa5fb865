"""Several decoders that predict each word together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, Memory
from visattn.errors import InputError
from visattn.models.decoder import Decoder


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsembleMemory(Memory):
    """The annotation vectors, which are also the keys, and the memory of each decoder.

    Attributes:
        members: the decoders' memories.
    """

    members: tuple[Memory, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A memory with each tensor changed."""
        return replace(super().map(change), members=tuple(member.map(change) for member in self.members))


class EnsembleState(NamedTuple):
    """The decoders' states."""

    members: tuple[Any, ...]

    def rows(self, captions: Tensor, images: Tensor | None = None) -> "EnsembleState":
        """See `Decoder.init`."""
        return EnsembleState(tuple(member.rows(captions, images) for member in self.members))


class Ensemble(Decoder):
    """The mean of the probabilities that several decoders give each word.

    As in "Show and tell: lessons learned from the 2015 MSCOCO image captioning challenge" (Vinyals et al. 2017). The
    decoders have one encoder and one vocabulary, and were trained from other seeds or in other ways. A word's attention
    weights, its focus and its gate are means, too. Contexts are concatenated.

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        members: make the decoders from V and D.

    Raises:
        InputError: if there are none.
    """

    def __init__(self, vocabulary_size: int, value_size: int, members: Sequence[Callable[[int, int], Decoder]]) -> None:
        super().__init__()
        if not members:
            raise InputError("members is empty; an ensemble needs at least one decoder")
        self.members = nn.ModuleList(make(vocabulary_size, value_size) for make in members)

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> EnsembleMemory:
        memories = tuple(member.prepare(values, grid, mask) for member in self.members)
        return EnsembleMemory(values, values, grid, mask, members=memories)

    def check_grid(self, grid: tuple[int, int]) -> None:
        for member in self.members:
            member.check_grid(grid)

    def init(self, memory: EnsembleMemory, captions: int = 1) -> EnsembleState:
        pairs = zip(self.members, memory.members, strict=True)
        return EnsembleState(tuple(member.init(own, captions) for member, own in pairs))

    def step(self, state: EnsembleState, token: Tensor) -> tuple[Tensor, Glimpse, EnsembleState]:
        pairs = zip(self.members, state.members, strict=True)
        logits, glimpses, states = zip(*(member.step(own, token) for member, own in pairs), strict=True)
        return _mean_probabilities(logits), _mean_glimpse(glimpses), EnsembleState(states)

    def forward(self, memory: EnsembleMemory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        pairs = zip(self.members, memory.members, strict=True)
        logits, glimpses = zip(*(member(own, tokens) for member, own in pairs), strict=True)
        return _mean_probabilities(logits), _mean_glimpse(glimpses)


def _mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the probabilities, which are logits (…, V) themselves."""
    log_probs = torch.stack([each.float().log_softmax(dim=-1) for each in logits])
    return log_probs.logsumexp(dim=0) - math.log(len(logits))


def _mean_glimpse(glimpses: Sequence[Glimpse]) -> Glimpse:
    contexts, weights, focus, log_probs, gates = zip(*glimpses, strict=True)
    means = (torch.stack(part).mean(dim=0) for part in (weights, focus, gates))
    alpha, used, gate = means
    return Glimpse(torch.cat(contexts, dim=-1), alpha, used, torch.stack(log_probs).sum(dim=0), gate)
