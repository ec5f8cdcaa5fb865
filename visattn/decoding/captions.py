"""Decoded tokens as words with their maps."""

import math
from typing import NamedTuple

import numpy as np

from visattn.decoding.loop import Decoded
from visattn.vocabulary import Vocabulary


class Caption(NamedTuple):
    """One generated caption; T words, or other tokens, without END.

    Attributes:
        words: the T words, as in the vocabulary.
        text: the caption as text.
        labels: the T words for display.
        log_probs: (T,) log-probability of each word.
        log_prob: log-probability of the whole caption, END included.
        weights: (T, H, W) α of each word.
        focus: (T, H, W) the weights that actually multiplied the annotation vectors.
        gates: (T,) β, the gate on the context vector.
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
        """The cell used for each word, numbered row by row; None if more than one was used."""
        cells = self.focus.reshape(len(self.words), math.prod(self.focus.shape[1:]))
        return [int(row.argmax()) if row.max() == row.sum() else None for row in cells]


def captions(decoded: Decoded, vocabulary: Vocabulary, grid: tuple[int, int]) -> list[Caption]:
    """Convert decoded tokens to words with their maps, one caption per row."""
    parts = (decoded.tokens, decoded.log_probs, decoded.weights, decoded.focus, decoded.gates)
    tokens, log_probs, weights, focus, gates = (part.detach().float().cpu().numpy() for part in parts)
    out = []
    for b, row in enumerate(tokens.astype(int).tolist()):
        words = vocabulary.decode(row)
        labels = list(map(vocabulary.tokens.label, words))
        alpha, used = (part[b, : len(words)].reshape(-1, *grid) for part in (weights, focus))
        each, whole, beta = log_probs[b, : len(words)], float(log_probs[b].sum()), gates[b, : len(words)]
        out.append(Caption(words, vocabulary.join(words), labels, each, whole, alpha, used, beta))
    return out
