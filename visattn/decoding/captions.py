"""Decoded tokens as words with their maps."""

import math
from typing import NamedTuple

import numpy as np

from visattn.decoding.loop import Decoded
from visattn.vocabulary import Vocabulary


class Caption(NamedTuple):
    """One generated caption; T words, or other tokens, without END.

    Attributes:
        words: the T words, as the vocabulary has them.
        text: the caption as it is written.
        labels: the T words, as each is shown by itself.
        log_probs: (T,) of each word, under the model.
        log_prob: of the whole caption, END included.
        weights: (T, H, W) α of each word.
        focus: (T, H, W) what really multiplied the annotation vectors.
        gates: (T,) β, what the decoder multiplied what it saw by.
    """

    words: list[str]
    text: str
    labels: list[str]
    log_probs: np.ndarray
    log_prob: float
    weights: np.ndarray
    focus: np.ndarray
    gates: np.ndarray

    @property
    def places(self) -> list[int | None]:
        """The cell that each word was made from, counted row by row; None if it was more than one."""
        cells = self.focus.reshape(len(self.words), math.prod(self.focus.shape[1:]))
        return [int(row.argmax()) if row.max() == row.sum() else None for row in cells]


def captions(decoded: Decoded, vocabulary: Vocabulary, grid: tuple[int, int]) -> list[Caption]:
    """Generated tokens as words with their maps, a caption for each row."""
    parts = (decoded.tokens, decoded.log_probs, decoded.weights, decoded.focus, decoded.gates)
    tokens, log_probs, weights, focus, gates = (part.detach().float().cpu().numpy() for part in parts)
    out = []
    for b, row in enumerate(tokens.astype(int).tolist()):
        words = vocabulary.decode(row)
        maps = (part[b, : len(words)].reshape(-1, *grid) for part in (weights, focus))
        numbers = (log_probs[b, : len(words)], float(log_probs[b].sum()), *maps, gates[b, : len(words)])
        out.append(Caption(words, vocabulary.join(words), list(map(vocabulary.tokens.label, words)), *numbers))
    return out
