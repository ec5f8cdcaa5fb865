"""Attention on sequences with a known alignment: tasks, a small model, and its alignment.

A sentence is treated as an image with a grid of 1 × S places, so every mechanism works on it unchanged. Each target
token depends on one source token at a known place. Used by `visattn sequences`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from visattn.attention import (
    AdditiveScore,
    Glimpse,
    HardAttention,
    Memory,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    SoftAttention,
    SpatialAttention,
)
from visattn.decoding import decode
from visattn.figures import Alignment
from visattn.metrics import entropy
from visattn.models import LuongDecoder
from visattn.training.objectives import CaptionLoss, LeaveOneOut, Reinforce
from visattn.vocabulary import END, PAD, SPECIALS, START

LENGTHS = (5, 12)  # minimum and maximum length of sequences
BATCH, SIZE, LEARNING_RATE = 32, 64, 3e-3
DRAWS, ENTROPY = (
    4,
    0.2,
)  # of hard attention; with a lower entropy weight some places are never sampled


class Task(NamedTuple):
    """A sequence task.

    Attributes:
        title: for display.
        source: the alphabet.
        target: the target symbol of each, in the same order.
        backwards: whether the order is reversed.
    """

    title: str
    source: str
    target: str
    backwards: bool


TASKS = {
    "reversal": Task("Reversal: the last symbol first", "abcdefghijklmnop", "abcdefghijklmnop", True),
    "copying": Task("Copying into another alphabet", "abcdefghijklmnop", "αβγδεζηθικλμνξοπ", False),
}

Mechanism = Callable[[int, int], SpatialAttention]

# Bahdanau's score. With Luong's general score, local-p missed the first word of reversal in 2 of 6 runs: its window was
# elsewhere, and there is no gradient from places outside the window.
SCORE = partial(AdditiveScore, hidden=SIZE)

MECHANISMS: dict[str, Mechanism] = {
    "soft": partial(SoftAttention, score=SCORE),
    "hard": partial(HardAttention, score=SCORE, probability=1.0),  # no steps of soft attention
    "local-m": partial(MonotonicLocalAttention, score=SCORE, window=2),
    "local-p": partial(PredictiveLocalAttention, score=SCORE, window=2),
    "multi-head": MultiHeadAttention,
}


class Batch(NamedTuple):
    """Sequences of several lengths; S is the greatest possible length.

    Attributes:
        source: (B, S) indices of source symbols.
        mask: (B, S) bool, True up to a sequence's end.
        tokens: (B, S + 2) START, the target, END, and PAD.
        places: (B, S) the place of each target symbol's source symbol; −1 beyond the end.
    """

    source: Tensor
    mask: Tensor
    tokens: Tensor
    places: Tensor


def make_batch(task: Task, count: int, generator: torch.Generator, lengths: tuple[int, int] = LENGTHS) -> Batch:
    """Sample `count` sequences and their targets."""
    shortest, longest = lengths
    length = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
    source = torch.randint(len(task.source), (count, longest), generator=generator)
    t = torch.arange(longest).expand(count, -1)
    mask = t < length
    places = (length - 1 - t if task.backwards else t).masked_fill(~mask, -1)
    tokens = torch.full((count, longest + 2), PAD)
    tokens[:, 0] = START
    tokens[:, 1:-1] = (len(SPECIALS) + source.gather(1, places.clamp(min=0))).masked_fill(~mask, PAD)
    return Batch(source, mask, tokens.scatter(1, length + 1, END), places)


class SequenceModel(nn.Module):
    """Source symbols to annotation vectors, and a decoder.

    An annotation vector is the sum of three learnt vectors: of the symbol, of its place from the front, and of its
    place from the back, both of which Bahdanau's recurrent encoder (2014) has access to.

    The decoder is Luong's, as for local attention: the query is a state that has read the previous word. In Xu's order
    it has not; soft attention learns both tasks in that order, too.

    Args:
        task: the task.
        mechanism: makes the attention from the sizes of query and values.
        longest: S.
    """

    def __init__(self, task: Task, mechanism: Mechanism, longest: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(len(task.source), SIZE)
        self.from_front, self.from_back = nn.Embedding(longest, SIZE), nn.Embedding(longest, SIZE)
        words = len(SPECIALS) + len(task.target)
        self.decoder = LuongDecoder(words, SIZE, mechanism, hidden=SIZE, embedding=SIZE, dropout=0.0)

    def remember(self, batch: Batch) -> Memory:
        """The memory of a batch's sources, as grids of one row."""
        place = torch.arange(batch.source.shape[1])
        back = (batch.mask.sum(dim=1, keepdim=True) - 1 - place).clamp(min=0)
        values = self.symbol(batch.source) + self.from_front(place) + self.from_back(back)
        return self.decoder.prepare(values, (1, values.shape[1]), batch.mask)


def train(
    task: Task,
    mechanism: Mechanism,
    steps: int,
    seed: int = 0,
    lengths: tuple[int, int] = LENGTHS,
    title: str | None = None,
) -> SequenceModel:
    """Train a model from random weights.

    Args:
        task: the task.
        mechanism: makes the attention.
        steps: number of batches.
        seed: of weights, sequences and samples.
        lengths: minimum and maximum length of sequences.
        title: of a progress bar; None for no bar.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SequenceModel(task, mechanism, lengths[1])
    draws = isinstance(model.decoder.attention, HardAttention)
    rule = Reinforce(entropy=ENTROPY, reward="to_go", baseline=LeaveOneOut(DRAWS)) if draws else None
    loss = CaptionLoss(doubly_stochastic=0.0, reinforce=rule)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 4 * (1 - step / steps)))
    for _ in tqdm(range(steps), desc=title, unit="step", leave=False, disable=title is None):
        batch = make_batch(task, BATCH, generator, lengths)
        owner = torch.arange(BATCH).repeat_interleave(DRAWS if draws else 1)
        memory, tokens = model.remember(batch).rows(owner), batch.tokens[owner]
        losses = loss(*model.decoder(memory, tokens[:, :-1]), tokens[:, 1:])
        optimizer.zero_grad()
        losses.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return model.eval()


@torch.no_grad()
def alignment(model: SequenceModel, batch: Batch) -> Glimpse:
    """The glimpses for each target symbol under teacher forcing, (B, S, …), without END."""
    _, glimpses = model.decoder(model.remember(batch), batch.tokens[:, :-1])
    return Glimpse(*(part[:, :-1] for part in glimpses))


@torch.no_grad()
def evaluate(model: SequenceModel, batch: Batch) -> dict[str, float]:
    """Scores of a model in evaluation mode.

    Returns:
        token_accuracy: share of correct tokens, including END, in freely generated sequences.
        alignment_accuracy: share of target symbols with the largest weight (for hard attention: the sampled place) at
            the correct place.
        entropy: of the weights, mean over target symbols, in nats.
    """
    target = batch.tokens[:, 1:]
    generated = decode(model.decoder, model.remember(batch), max_length=batch.source.shape[1]).tokens
    generated = F.pad(generated, (0, target.shape[1] - generated.shape[1]), value=PAD)
    seen = alignment(model, batch)
    return {
        "token_accuracy": (generated == target)[target != PAD].float().mean().item(),
        "alignment_accuracy": (seen.focus.argmax(dim=-1) == batch.places)[batch.mask].float().mean().item(),
        "entropy": float(entropy(seen.weights[batch.mask].numpy()).mean()),
    }


def picture(task: Task, models: dict[str, SequenceModel], results: list[dict], seed: int) -> Alignment:
    """The alignments of a task's models for one unseen sequence of the greatest length."""
    longest = LENGTHS[1]
    batch = make_batch(task, 1, torch.Generator().manual_seed(seed), (longest, longest))
    seen = {name: alignment(model, batch) for name, model in models.items()}
    hard = {name for name, model in models.items() if isinstance(model.decoder.attention, HardAttention)}
    return Alignment(
        maps=[(name, glimpses.weights[0].numpy()) for name, glimpses in seen.items()],
        source=[task.source[i] for i in batch.source[0]],
        target=[task.target[i - len(SPECIALS)] for i in batch.tokens[0, 1:-1]],
        expected=batch.places[0].numpy(),
        drawn=[glimpses.focus[0].numpy() if name in hard else None for name, glimpses in seen.items()],
        notes=[
            f"aligned {100 * r['alignment_accuracy']:.1f} %, tokens right {100 * r['token_accuracy']:.1f} %"
            for r in results
        ],
        heading=task.title,
    )
