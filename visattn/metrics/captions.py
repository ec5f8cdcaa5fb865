"""BLEU, ROUGE-L and CIDEr-D of tokenised captions, equal to the official COCO tool's for equal tokens.

"Official" means pycocoevalcap 1.2 (`Bleu(4)` with the closest reference length, `Rouge`, and `Cider`, which in spite of
its name is CIDEr-D), including its quirks, which are marked in the code. Captions must be tokenised first; published
scores use PTB tokens (`visattn.metrics.ptb`), and scores on other tokens are not comparable with them.

METEOR has no exact equivalent in Python (NLTK's differs); `visattn.metrics.official` runs the original program. SPICE
is left out, since it needs Java and downloads. torchmetrics' BLEU is not used, because it differs: of two references
equally close in length it takes the first, not the shorter (BLEU-1 changes by 0.004 on 126 images of COCO), and it
gives 0 to an image without a matching 4-gram, where the official tool smooths.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from visattn.errors import InputError

ORDERS = (1, 2, 3, 4)  # lengths of n-grams in BLEU and CIDEr-D
NAMES = (*(f"BLEU-{n}" for n in ORDERS), "ROUGE-L", "CIDEr-D")

_ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0

References = Mapping[str, Sequence[Sequence[str]]]  # image id -> its captions, each a list of words
Candidates = Mapping[str, Sequence[str]]  # image id -> the words of the caption to score


class CaptionScores(NamedTuple):
    """Scores under the names "BLEU-1" to "BLEU-4" and "ROUGE-L", in [0, 1], and "CIDEr-D", in [0, 10].

    Attributes:
        corpus: the score of the whole set. For ROUGE-L and CIDEr-D this is the mean over images; BLEU is computed from
            pooled counts, so it is not the mean.
        per_image: image id -> scores by the same names, in the order of the references.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]


class DocumentFrequencies(NamedTuple):
    """Number of images whose references contain each n-gram, from which CIDEr-D computes idf weights.

    Attributes:
        counts: n-gram, as a tuple of 1 to 4 words -> the number of images with it in any of their references.
        images: the number of images counted.
    """

    counts: Mapping[tuple[str, ...], int]
    images: int

    @classmethod
    def of(cls, references: References) -> "DocumentFrequencies":
        """Count the references of the scored images (as the official tool does) or of the training set (as SCST does).

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

    Only the document frequencies are stored; tf-idf vectors of references are computed when their image is scored,
    since those of a whole training set would take gigabytes.

    Args:
        references: image id -> its tokenised captions, at least one.
        frequencies: document frequencies; by default those of `references`. Frequencies from a single image make every
            weight log 1 = 0, and so every score 0.

    Raises:
        InputError: if there is no image, or one without a reference.
    """

    def __init__(self, references: References, frequencies: DocumentFrequencies | None = None) -> None:
        check_references(references)
        self.references = references
        self.frequencies = DocumentFrequencies.of(references) if frequencies is None else frequencies

    def score(self, candidates: Candidates) -> dict[str, float]:
        """The score of each candidate, in [0, 10]; not every image needs a candidate.

        Raises:
            InputError: if a candidate's image has no references.
        """
        return {image: self.score_image(image, [candidate])[0] for image, candidate in candidates.items()}

    def score_image(self, image: str, candidates: Iterable[Sequence[str]]) -> list[float]:
        """The scores of several candidates for one image.

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
        """The tf-idf vectors of a caption; n-grams that occur in no reference get the document frequency 1."""
        counts, log_images = self.frequencies.counts, math.log(self.frequencies.images)
        vectors = [
            {gram: count * (log_images - math.log(counts.get(gram, 1))) for gram, count in grams.items()}
            for grams in _ngrams(caption)
        ]
        norms = [math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors]
        return _Weighed(vectors, norms, len(caption))


class _Weighed(NamedTuple):
    """A caption's tf-idf vectors and their norms, by n-gram order, and its length."""

    vectors: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def _likeness(candidate: _Weighed, reference: _Weighed) -> float:
    """Mean over n-gram orders of the clipped cosine, with the Gaussian length penalty; in [0, 1]."""
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
    reference is 1. For a single image CIDEr-D is always 0 (log 1 = 0), unless `frequencies` come from more images.

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
    # fsum, so that the mean does not depend, in its last bits, on the order in which processes captioned the images
    means = [math.fsum(s[name] for s in per_image.values()) / len(per_image) for name in ("ROUGE-L", "CIDEr-D")]
    return CaptionScores(dict(zip(NAMES, (*total.bleu(), *means), strict=True)), per_image)


class _Matches(NamedTuple):
    """The counts behind BLEU (Papineni et al. 2002), for one caption or summed over many.

    Attributes:
        matched: for each order, the candidate's n-grams that occur in a reference, with clipped counts.
        possible: for each order, the number of n-grams in the candidate.
        length: number of words in the candidate.
        reference_length: number of words in the reference closest in length; the shorter one in a tie.
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
        tiny, small = 1e-15, 1e-9  # official smoothing; it is noticeable: BLEU-4 of two matching words is 0.03
        scores, product = [], 1.0
        for order, matched, possible in zip(ORDERS, self.matched, self.possible, strict=True):
            product *= (matched + tiny) / (possible + small)
            scores.append(product ** (1 / order))
        ratio = (self.length + tiny) / (self.reference_length + small)
        brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        return [score * brevity for score in scores]


def _rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L (Lin 2004), beta = 1.2, from the best precision and the best recall, possibly of different references."""
    # The official tool splits "" at spaces into [""], so an empty caption is one empty word there.
    common = [_longest_common_subsequence(candidate or [""], caption or [""]) for caption in references]
    precision = max(common) / (len(candidate) or 1)
    recall = max(n / (len(caption) or 1) for n, caption in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    best = [0] * (len(second) + 1)  # best[j]: for the words of `first` so far and the first j words of `second`
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            above = best[j]
            best[j] = diagonal + 1 if word == other else max(above, best[j - 1])
            diagonal = above
    return best[-1]


def _ngrams(caption: Sequence[str]) -> list[Counter[tuple[str, ...]]]:
    """For each order, the counts of the caption's n-grams."""
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
