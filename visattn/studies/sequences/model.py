"""The small model of the sequence study: one of two encoders, any mechanism, Luong's decoder."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from visattn.attention import (
    AdditiveScore,
    FinalStateAttention,
    HardAttention,
    MeanAttention,
    Memory,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    SoftAttention,
    SpatialAttention,
)
from visattn.errors import require_choice
from visattn.models import LuongDecoder
from visattn.studies.sequences.tasks import Batch, Task
from visattn.vocabulary import SPECIALS

SIZE = 64
Encoding = Literal["places", "recurrent"]
Mechanism = Callable[[int, int], SpatialAttention]

# Bahdanau's score. With Luong's general score, local-p missed the first word of reversal in 2 of 6 runs: its window was
# elsewhere, and there is no gradient from places outside the window.
SCORE = partial(AdditiveScore, hidden=SIZE)

MECHANISMS: dict[str, Mechanism] = {
    "fixed": FinalStateAttention,
    "mean": MeanAttention,
    "soft": partial(SoftAttention, score=SCORE),
    "hard": partial(HardAttention, score=SCORE, probability=1.0),  # no steps of soft attention
    "local-m": partial(MonotonicLocalAttention, score=SCORE, window=2),
    "local-p": partial(PredictiveLocalAttention, score=SCORE, window=2),
    "multi-head": MultiHeadAttention,
}


class PlaceEncoder(nn.Module):
    """Annotation vectors that know nothing of their neighbours: only attention to the true place solves a task.

    Each is the sum of three learnt vectors: of the symbol, of its place from the front, and of its place from the back,
    both of which Bahdanau's recurrent encoder (2014) has access to.

    Args:
        symbols: number of source symbols.
        longest: S; there are no vectors for places beyond.
    """

    def __init__(self, symbols: int, longest: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, SIZE)
        self.from_front, self.from_back = nn.Embedding(longest, SIZE), nn.Embedding(longest, SIZE)

    def forward(self, source: Tensor, mask: Tensor) -> Tensor:
        """Symbols (B, S) and their mask to annotation vectors (B, S, D)."""
        place = torch.arange(source.shape[1])
        back = (mask.sum(dim=1, keepdim=True) - 1 - place).clamp(min=0)
        return self.symbol(source) + self.from_front(place) + self.from_back(back)


class RecurrentEncoder(nn.Module):
    """Bahdanau's bidirectional GRU (2014, appendix A.2.1), for sequences of any length: [forward; backward].

    Args:
        symbols: number of source symbols.
    """

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, SIZE)
        self.recurrent = nn.GRU(SIZE, SIZE // 2, batch_first=True, bidirectional=True)

    def forward(self, source: Tensor, mask: Tensor) -> Tensor:
        """Symbols (B, S) and their mask to annotation vectors (B, S, D), 0 in the padding."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.symbol(source), mask.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        states, _ = self.recurrent(packed)
        return nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])[0]


class SequenceModel(nn.Module):
    """Source symbols to annotation vectors, and a decoder.

    The decoder is Luong's, as for local attention: the query is a state that has read the previous word. In Xu's order
    it has not; soft attention learns reversal and copying in that order, too.

    Args:
        task: the task.
        mechanism: makes the attention from the sizes of query and values.
        encoding: "places" for a `PlaceEncoder`, "recurrent" for a `RecurrentEncoder`.

    Raises:
        InputError: if there is no such encoding.
    """

    def __init__(self, task: Task, mechanism: Mechanism, encoding: Encoding = "places") -> None:
        super().__init__()
        require_choice("encoding", encoding, get_args(Encoding))
        symbols = len(task.source)
        self.encoder = RecurrentEncoder(symbols) if encoding == "recurrent" else PlaceEncoder(symbols, task.longest)
        words = len(SPECIALS) + len(task.target)
        self.decoder = LuongDecoder(words, SIZE, mechanism, hidden=SIZE, embedding=SIZE, dropout=0.0)

    def remember(self, batch: Batch) -> Memory:
        """The memory of a batch's sources, as grids of one row."""
        values = self.encoder(batch.source, batch.mask)
        return self.decoder.prepare(values, (1, values.shape[1]), batch.mask)
