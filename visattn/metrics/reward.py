"""CIDEr-D of many sampled captions at once: the reward of self-critical sequence training (Rennie et al. 2017)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visattn.errors import InputError
from visattn.metrics.captions import CIDER_SIGMA, ORDERS, References, check_references
from visattn.vocabulary import END, PAD, Vocabulary


class CiderReward:
    """CIDEr-D of generated token ids against the references of their images, with the same values as `CiderD`.

    END counts as one more word, "<end>", of every reference and of each candidate that has it. Without it, as in much
    published code, "a man riding a horse on a" may score above "a man riding a horse", since "on a" occurs in some
    reference. A policy then learns to leave captions unfinished, which raises published CIDEr-D by up to 4.1 points
    (0.041 here; Hu et al. 2023, "A request for clarity over the End of Sequence token in the Self-Critical Sequence
    Training", arXiv:2305.12254). With END, such a fragment has n-grams that occur in no reference, and a sample
    truncated at the greatest length lacks the n-grams of an end.

    A reference word outside the vocabulary cannot be matched by any candidate, but counts in lengths, norms and
    document frequencies. Everything about the references is computed once, and takes about 0.8 kB per caption.

    Args:
        references: image id -> its tokenised captions, at least one, as words. Document frequencies are those of the
            references; if there is a single image, every reward is 0.
        words: the vocabulary, or a list of its words in the order of their ids, special tokens first.
        end: whether END counts, in references and candidates.

    Raises:
        InputError: if there is no image, or one without a reference; if `words` are not a `Vocabulary`'s.
        TypeError: if a caption is a string instead of a list of words.
    """

    def __init__(self, references: References, words: Sequence[str] | Vocabulary, end: bool = True) -> None:
        check_references(references)
        self.end = end
        words = (words if isinstance(words, Vocabulary) else Vocabulary(words)).words
        self._vocabulary_size = len(words)
        self._images = {image: i for i, image in enumerate(references)}
        self._captions = np.array([len(captions) for captions in references.values()])  # of each image
        tokens, self._lengths, self._base = _encode(references, words, end)

        image = np.repeat(np.arange(len(self._captions)), self._captions)  # of each caption
        caption = np.repeat(np.arange(len(self._lengths)), self._lengths)  # of each token
        left = _left(self._lengths)
        grams = np.zeros(len(tokens), np.int64)  # id of the n-gram that begins at each token, for the current order
        self._orders: list[_Order] = []
        for order in ORDERS:
            at = np.flatnonzero(left >= order)
            keys, grams[at] = np.unique(grams[at] * self._base + tokens[at + order - 1], return_inverse=True)
            self._orders.append(_Order.build(keys, caption[at], grams[at], image))

    @property
    def signature(self) -> str:
        """The settings of the reward, to publish with scores; df: source of document frequencies (number of images)."""
        return f"CIDEr-D|eos:{'counted' if self.end else 'ignored'}|df:references({len(self._images)})"

    def __call__(self, ids: Sequence[str], tokens: np.ndarray) -> np.ndarray:
        """The rewards of N captions, in [0, 10]; an empty one gets 0.

        Args:
            ids: the ids of their images; may repeat.
            tokens: (N, T) integers as `decode` gives them: words, END if the caption ended, then PAD.

        Returns:
            (N,) float64.

        Raises:
            InputError: if an image has no references.
            ValueError: if `tokens` are not (N, T), not of that form, or not ids of the vocabulary.
        """
        for image in ids:
            if image not in self._images:
                raise InputError(f"image {image!r} has a caption but no references; add some for the reward")
        images = np.array([self._images[image] for image in ids], dtype=np.int64)
        flat, lengths = self._flatten(tokens, len(ids))

        rows = np.repeat(np.arange(len(ids)), lengths)  # of each token
        left = _left(lengths)
        grams = np.zeros(len(flat), np.int64)
        likeness = np.zeros(len(ids))  # summed over orders and references
        for order, known in zip(ORDERS, self._orders, strict=True):
            at = np.flatnonzero(left >= order)
            grams[at] = known.number(grams[at] * self._base + flat[at + order - 1])
            row, caption, cosine = known.cosines(rows[at], grams[at], images)
            damping = np.exp(-((lengths[row] - self._lengths[caption]) ** 2) / (2 * CIDER_SIGMA**2))
            likeness += np.bincount(row, cosine * damping, len(ids))
        return 10 * likeness / (len(ORDERS) * self._captions[images])

    def _flatten(self, tokens: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The counted tokens of all captions, concatenated, and the number in each caption."""
        check_tokens(tokens, rows, self._vocabulary_size)
        padded = np.pad(tokens.astype(np.int64), ((0, 0), (0, 1)), constant_values=PAD)
        words = np.argmax(padded <= END, axis=1)  # PAD, START and END come before all words
        ended = padded[np.arange(rows), words] == END
        if not np.array_equal(np.count_nonzero(padded != PAD, axis=1), words + ended):
            raise ValueError("tokens must be words, END if the caption ended, then PAD, without START")
        lengths = words + (ended & self.end)
        return padded[np.arange(padded.shape[1]) < lengths[:, None]], lengths


def check_tokens(tokens: np.ndarray, rows: int, vocabulary_size: int) -> None:
    """Raise a ValueError unless `tokens` are (rows, T) ids of a vocabulary."""
    if tokens.ndim != 2 or len(tokens) != rows:
        raise ValueError(f"tokens must have a row for each of {rows} ids; their shape is {tokens.shape}")
    if tokens.size and tokens.max() >= vocabulary_size:
        raise ValueError(f"token {tokens.max()} is not of this vocabulary, which has {vocabulary_size} words")


class _Order(NamedTuple):
    """The n-grams of one order in all references: G n-grams in P (image, n-gram) pairs and E (caption, n-gram) entries.

    An n-gram's key is the id of its first n - 1 words (0 if none) times a base above all words, plus its last word,
    which is exact in 64 bits for any vocabulary. Its id is the index of the key among all keys.

    Attributes:
        keys: (G,) sorted.
        idf: (G + 1,) log(images / images with the n-gram); the last is for n-grams outside the references.
        pairs: (P,) sorted: image times G plus n-gram id.
        first: (P + 1,) index of each pair's first entry; then E.
        captions: (E,) a caption of that image with the n-gram.
        counts: (E,) its count there.
        norms: (captions,) of each caption's tf-idf vector.
    """

    keys: np.ndarray
    idf: np.ndarray
    pairs: np.ndarray
    first: np.ndarray
    captions: np.ndarray
    counts: np.ndarray
    norms: np.ndarray

    @classmethod
    def build(cls, keys: np.ndarray, captions: np.ndarray, grams: np.ndarray, image: np.ndarray) -> "_Order":
        """Build from the keys, the caption and the id of each n-gram, and the (captions,) image of each caption."""
        captions, grams, counts = _counted(captions, grams)
        pairs = image[captions] * len(keys) + grams
        by_pair = np.argsort(pairs)
        pairs, first = np.unique(pairs[by_pair], return_index=True)
        frequencies = np.bincount(pairs % len(keys), minlength=len(keys))
        idf = np.log((image[-1] + 1) / np.append(frequencies, 1))  # exactly 0 if it occurs in all images
        return cls(
            keys,
            idf,
            pairs,
            np.append(first, len(captions)).astype(np.int32),
            captions[by_pair].astype(np.int32),
            counts[by_pair].astype(np.min_scalar_type(counts.max(initial=1))),
            _norms(captions, counts * idf[grams], len(image)),
        )

    def number(self, keys: np.ndarray) -> np.ndarray:
        """The ids of n-grams; those outside the references get ids from G on."""
        numbers, found = _find(self.keys, keys)
        numbers[~found] = len(self.keys) + np.unique(keys[~found], return_inverse=True)[1]
        return numbers

    def cosines(
        self, rows: np.ndarray, grams: np.ndarray, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The contribution of each shared n-gram to the clipped cosine of a candidate with a reference.

        Args:
            rows: for each n-gram of the candidates, the candidate.
            grams: its id.
            images: (N,) the candidates' images.

        Returns:
            Candidate, reference and contribution, for each shared n-gram.
        """
        rows, grams, counts = _counted(rows, grams)
        idf = self.idf[np.minimum(grams, len(self.keys))]
        norms = _norms(rows, counts * idf, len(images))

        pairs, found = _find(self.pairs, images[rows] * len(self.keys) + grams)
        found &= (grams < len(self.keys)) & (idf > 0)  # a weight of 0 adds nothing, and its norm may be 0
        rows, counts, idf, pairs = rows[found], counts[found], idf[found], pairs[found]
        sharing = self.first[pairs + 1] - self.first[pairs]  # captions of the image with the n-gram
        entries = np.repeat(self.first[pairs], sharing) + _ranges(sharing)
        rows, counts, idf = (np.repeat(part, sharing) for part in (rows, counts, idf))
        captions, theirs = self.captions[entries], self.counts[entries]
        shared = np.minimum(counts, theirs) * theirs * idf**2
        return rows, captions, shared / (norms[rows] * self.norms[captions])


def _encode(references: References, words: Sequence[str], end: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """The tokens of all captions, concatenated; the length of each caption; and a base above all tokens."""
    ids = {word: i for i, word in enumerate(words)}
    tokens: list[int] = []
    lengths: list[int] = []
    for captions in references.values():
        for caption in captions:
            if isinstance(caption, str):  # would be scored letter by letter
                raise TypeError(f"a caption must be a list of words, not the string {caption!r}")
            tokens += [ids.setdefault(word, len(ids)) for word in caption]
            tokens += [END] * end
            lengths.append(len(caption) + end)
    return np.array(tokens, dtype=np.int64), np.array(lengths), len(ids)


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """0, 1, … up to each length, concatenated."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _left(lengths: np.ndarray) -> np.ndarray:
    """For each token of concatenated captions, the number of tokens in its caption from there on."""
    return np.repeat(lengths, lengths) - _ranges(lengths)


def _counted(owners: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct (owner, n-gram) pairs, sorted, and their counts."""
    size = grams.max(initial=0) + 1
    entries, counts = np.unique(owners * size + grams, return_counts=True)
    return *np.divmod(entries, size), counts


def _norms(owners: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """(size,) Euclidean norm of each owner's weights."""
    return np.sqrt(np.bincount(owners, weights**2, size))


def _find(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index of each key in a sorted table, or its insertion point; and whether it is present."""
    places = np.searchsorted(table, keys)
    return places, places < np.searchsorted(table, keys, side="right")
