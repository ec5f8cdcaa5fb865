"""BLEU, ROUGE-L and CIDEr-D of tokenised captions, equal to the official COCO tool for equal tokens.

"Official" is pycocoevalcap 1.2 (`Bleu(4)` with the closest reference length, `Rouge`, and `Cider`, which in spite of
its name is CIDEr-D), habits included: they are marked where they are. Tokenising is the caller's; the published numbers
are on PTB tokens (`visattn.metrics.ptb`), and scores on other tokens do not compare with them.

METEOR has no equal in Python (NLTK's is another number); `visattn.metrics.official` runs the program itself. Left out:
SPICE, which needs Java and downloads; and torchmetrics' BLEU, which is another number too: of two references equally
close in length it takes the first, where the official tool takes the shorter (BLEU-1 moves by 0.004 on 126 images of
COCO), and an image without a matching 4-gram gets 0, where the official tool is smooth.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from visattn.errors import InputError

ORDERS = (1, 2, 3, 4)  # lengths of n-grams, for BLEU and CIDEr-D alike
NAMES = (*(f"BLEU-{n}" for n in ORDERS), "ROUGE-L", "CIDEr-D")

_ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0

References = Mapping[str, Sequence[Sequence[str]]]  # image id -> its captions, each a list of words
Candidates = Mapping[str, Sequence[str]]  # image id -> the words of the one caption that is scored


class CaptionScores(NamedTuple):
    """Scores under the names "BLEU-1" to "BLEU-4" and "ROUGE-L", in [0, 1], and "CIDEr-D", in [0, 10].

    Attributes:
        corpus: the score of the whole set: for ROUGE-L and CIDEr-D the mean over the images, for BLEU the score of the
            pooled counts, which is not the mean.
        per_image: image id -> the same names, in the order of the references.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]


class DocumentFrequencies(NamedTuple):
    """How many images mention each n-gram: what CIDEr-D takes for common. Build it once, use it often.

    Attributes:
        counts: n-gram, as a tuple of 1 to 4 words -> the number of images that have it in any of their references.
        images: the number of images counted.
    """

    counts: Mapping[tuple[str, ...], int]
    images: int

    @classmethod
    def of(cls, references: References) -> "DocumentFrequencies":
        """Count `references`: the ones to be scored against (the official tool), or those of the training set (SCST).

        Raises:
            InputError: if there is no image, or one without a reference.
        """
        check_references(references)
        counts: Counter[tuple[str, ...]] = Counter()
        for captions in references.values():
            counts.update({gram for caption in captions for grams in _ngrams(caption) for gram in grams})
        return cls(dict(counts), len(references))


class CiderD:
    """CIDEr-D of any candidates against fixed references (Vedantam et al. 2015; n = 4, sigma = 6).

    Only the document frequencies are kept; the references of an image are weighed when it is scored, since those of a
    whole training set would fill gigabytes. One object serves any number of calls, on any part of the images.

    Args:
        references: image id -> its tokenised captions, at least one.
        frequencies: what is common; by default counted from `references`. Frequencies of a single image make every
            weight log 1 = 0, and every score 0.

    Raises:
        InputError: if there is no image, or one without a reference.
    """

    def __init__(self, references: References, frequencies: DocumentFrequencies | None = None) -> None:
        check_references(references)
        self.references = references
        self.frequencies = DocumentFrequencies.of(references) if frequencies is None else frequencies

    def score(self, candidates: Candidates) -> dict[str, float]:
        """The score of each candidate, in [0, 10]; `candidates` may leave images out.

        Raises:
            InputError: if a candidate's image has no references.
        """
        return {image: self.score_image(image, [candidate])[0] for image, candidate in candidates.items()}

    def score_image(self, image: str, candidates: Iterable[Sequence[str]]) -> list[float]:
        """The scores of several candidates for one image, whose references are weighed once for all of them.

        Raises:
            InputError: if the image has no references.
        """
        _check_known(image, self.references)
        references = [self._weigh(caption) for caption in self.references[image]]
        return [
            10 * sum(_likeness(self._weigh(candidate), reference) for reference in references) / len(references)
            for candidate in candidates
        ]

    def _weigh(self, caption: Sequence[str]) -> "_Weighed":
        """The tf-idf vectors of a caption; n-grams that no reference has count as rare as those of one image."""
        counts, log_images = self.frequencies.counts, math.log(self.frequencies.images)
        vectors = [
            {gram: count * (log_images - math.log(counts.get(gram, 1))) for gram, count in grams.items()}
            for grams in _ngrams(caption)
        ]
        norms = [math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors]
        return _Weighed(vectors, norms, len(caption))


class _Weighed(NamedTuple):
    """A caption as CIDEr-D sees it: for each order the weights of its n-grams and their norm; its length."""

    vectors: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def _likeness(candidate: _Weighed, reference: _Weighed) -> float:
    """Mean over the orders of the clipped cosine, damped by the difference in length; in [0, 1]."""
    cosines = 0.0
    for ours, theirs, our_norm, their_norm in zip(
        candidate.vectors, reference.vectors, candidate.norms, reference.norms, strict=True
    ):
        if our_norm and their_norm:
            shared = sum(min(w, theirs[gram]) * theirs[gram] for gram, w in ours.items() if gram in theirs)
            cosines += shared / (our_norm * their_norm)
    return math.exp(-((candidate.length - reference.length) ** 2) / (2 * CIDER_SIGMA**2)) * cosines / len(ORDERS)


def caption_scores(
    references: References, candidates: Candidates, frequencies: DocumentFrequencies | None = None
) -> CaptionScores:
    """Score one candidate for each image.

    An empty candidate is allowed and scores 0, except that the official ROUGE-L of an empty candidate against an empty
    reference is 1. With one image alone CIDEr-D is 0, whatever the candidate (log 1 = 0), unless `frequencies` come
    from more images. The order of the images changes nothing.

    Args:
        references: image id -> its tokenised captions, at least one.
        candidates: image id -> a tokenised caption; the same ids.
        frequencies: document frequencies for CIDEr-D; by default those of `references`, as in the official tool.

    Returns:
        The scores of the set and of each image.

    Raises:
        InputError: if there is no image, an image has no reference, or the ids of the two are not the same set.
        TypeError: if a caption is a string instead of a list of words.
    """
    _check_candidates(references, candidates)
    cider = CiderD(references, frequencies).score(candidates)

    per_image: dict[str, dict[str, float]] = {}
    total = _Matches([0] * len(ORDERS), [0] * len(ORDERS), 0, 0)
    for image, captions in references.items():
        matches = _Matches.of(candidates[image], captions)
        total = total.plus(matches)
        rouge = _rouge_l(candidates[image], captions)
        per_image[image] = dict(zip(NAMES, (*matches.bleu(), rouge, cider[image]), strict=True))
    # fsum: the mean is the same, to the bit, in whatever order the images came from the processes that captioned them
    means = [math.fsum(s[name] for s in per_image.values()) / len(per_image) for name in ("ROUGE-L", "CIDEr-D")]
    return CaptionScores(dict(zip(NAMES, (*total.bleu(), *means), strict=True)), per_image)


class _Matches(NamedTuple):
    """What BLEU counts (Papineni et al. 2002), of one caption or, added up, of many.

    Attributes:
        matched: for each order, the candidate's n-grams that stand in a reference, each as often as in one at most.
        possible: for each order, the candidate's n-grams.
        length: the candidate's words.
        reference_length: the words of the reference closest in length, the shorter of two.
    """

    matched: list[int]
    possible: list[int]
    length: int
    reference_length: int

    @classmethod
    def of(cls, candidate: Sequence[str], references: Sequence[Sequence[str]]) -> "_Matches":
        reference_grams = [_ngrams(caption) for caption in references]
        matched, possible = [], []
        for order, grams in enumerate(_ngrams(candidate)):
            in_references = [caption[order] for caption in reference_grams]
            matched.append(sum(min(n, max(r.get(gram, 0) for r in in_references)) for gram, n in grams.items()))
            possible.append(sum(grams.values()))
        closest = min((abs(len(caption) - len(candidate)), len(caption)) for caption in references)[1]
        return cls(matched, possible, len(candidate), closest)

    def plus(self, other: "_Matches") -> "_Matches":
        return _Matches(
            [a + b for a, b in zip(self.matched, other.matched, strict=True)],
            [a + b for a, b in zip(self.possible, other.possible, strict=True)],
            self.length + other.length,
            self.reference_length + other.reference_length,
        )

    def bleu(self) -> list[float]:
        """BLEU-1 to BLEU-4."""
        tiny, small = 1e-15, 1e-9  # the official smoothing, which shows: no 4-gram in two words still gives 0.03
        scores, product = [], 1.0
        for order, matched, possible in zip(ORDERS, self.matched, self.possible, strict=True):
            product *= (matched + tiny) / (possible + small)
            scores.append(product ** (1 / order))
        ratio = (self.length + tiny) / (self.reference_length + small)
        brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        return [score * brevity for score in scores]


def _rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L (Lin 2004) of the best precision and the best recall, be they of different references; beta = 1.2."""
    # Splitting "" at spaces gives [""]: to the official ROUGE-L an empty caption is one empty word.
    common = [_longest_common_subsequence(candidate or [""], caption or [""]) for caption in references]
    precision = max(common) / (len(candidate) or 1)
    recall = max(n / (len(caption) or 1) for n, caption in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    best = [0] * (len(second) + 1)  # best[j]: of the words of `first` so far and the first j words of `second`
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            above = best[j]
            best[j] = diagonal + 1 if word == other else max(above, best[j - 1])
            diagonal = above
    return best[-1]


def _ngrams(caption: Sequence[str]) -> list[Counter[tuple[str, ...]]]:
    """For each order, how often each n-gram stands in the caption."""
    if isinstance(caption, str):  # would be scored letter by letter
        raise TypeError(f"a caption must be a list of words, not the string {caption!r}")
    return [Counter(zip(*(caption[start:] for start in range(order)), strict=False)) for order in ORDERS]


def check_references(references: References) -> None:
    """Raise an `InputError` if there is no image, or one without a reference."""
    if not references:
        raise InputError("there are no references; give at least one image with its captions")
    for image, captions in references.items():
        if not captions:
            raise InputError(f"image {image!r} has no references; add one or leave the image out")


def _check_known(image: str, references: References) -> None:
    if image not in references:
        raise InputError(f"image {image!r} has a candidate but no references; add them or leave the candidate out")


def _check_candidates(references: References, candidates: Candidates) -> None:
    check_references(references)
    for image in references:
        if image not in candidates:
            raise InputError(f"image {image!r} has references but no candidate; every image must have one")
    for image in candidates:
        _check_known(image, references)
