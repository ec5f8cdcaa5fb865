"""Random captions with a realistic word distribution and shared n-grams."""

from typing import NamedTuple

import numpy as np


class Sentences(NamedTuple):
    """Captions of images.

    Attributes:
        references: image id -> its captions, in words.
        candidates: image id -> one more.
    """

    references: dict[str, list[list[str]]]
    candidates: dict[str, list[str]]


def zipf(words: int) -> np.ndarray:
    """(words,) probabilities that fall as the rank grows: p ∝ 1 / rank (Zipf 1949)."""
    shares = 1 / np.arange(1, words + 1)
    return shares / shares.sum()


def sentences(images: int, each: int, words: list[str], changed: float = 0.4) -> Sentences:
    """Captions of 8 to 20 words, the more common first in `words`.

    Those of an image are the same sentence, of whose words each has another share exchanged.

    Args:
        images: how many.
        each: references of an image.
        words: to make them of.
        changed: share of the words that is exchanged.
    """
    rng, shares = np.random.default_rng(0), zipf(len(words))
    references, candidates = {}, {}
    for image in range(images):
        length = rng.integers(8, 21)
        sentence = rng.choice(len(words), length, p=shares)
        others = rng.choice(len(words), (each + 1, length), p=shares)
        own = np.where(rng.random((each + 1, length)) < changed, others, sentence)
        *references[str(image)], candidates[str(image)] = [[words[word] for word in row] for row in own]
    return Sentences(references, candidates)
