"""Captions and words that do not reach the model: counted by reason, and an error if there are too many."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from visattn.errors import InputError
from visattn.vocabulary import Vocabulary, Words, phrases

MAX_LEFT_OUT = 0.05  # maximum share of a file's captions
MAX_UNKNOWN = 0.2  # maximum share of a split's words
SHOWN = 3  # examples per reason

log = logging.getLogger(__name__)


class LeftOut:
    """Captions and images that are left out, by reason.

    Args:
        captions: total number of captions, including those left out.

    Attributes:
        reasons: number of captions by reason.
        images: number of images by reason.
        examples: the first examples by reason.
    """

    def __init__(self, captions: int = 0) -> None:
        self.captions = captions
        self.reasons: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @property
    def share(self) -> float:
        """Share of all captions."""
        return self.reasons.total() / max(1, self.captions)

    def add(self, reason: str, example: str) -> None:
        """Count a caption."""
        self.reasons[reason] += 1
        self._show(reason, example)

    def add_image(self, reason: str, example: str) -> None:
        """Count an image; there is no limit for images."""
        self.images[reason] += 1
        self._show(reason, example)

    def update(self, other: "LeftOut") -> None:
        """Add the counts of another."""
        self.captions += other.captions
        self.reasons.update(other.reasons)
        self.images.update(other.images)
        for reason, examples in other.examples.items():
            for example in examples:
                self._show(reason, example)

    def lines(self) -> list[str]:
        """A line for each reason, with examples."""
        captions = [
            f"{n} of {self.captions} captions are left out because they {self._why(reason)}"
            for reason, n in self.reasons.items()
        ]
        return captions + [
            f"{n} images are left out because they {self._why(reason)}" for reason, n in self.images.items()
        ]

    def report(self, name: str, share: float = MAX_LEFT_OUT) -> None:
        """Log what is left out of the data called `name`.

        Raises:
            InputError: if it is more than `share` of the captions.
        """
        for line in self.lines():
            log.warning("%s: %s", name, line)
        if self.share > share:
            reason, count = self.reasons.most_common(1)[0]
            raise InputError(
                f"{name}: {self.reasons.total()} of {self.captions} captions would be left out, more than {share:.0%}: "
                f"{count} because they {self._why(reason)}; fix them, or allow it with --data.max_left_out"
            )

    def _why(self, reason: str) -> str:
        return f"{reason}, such as {', '.join(self.examples[reason])}"

    def _show(self, reason: str, example: str) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < SHOWN:
            examples.append(example)


@dataclass
class WordCounts:
    """Counts of words in captions.

    Attributes:
        words: occurrences of each word.
        captions: number of captions.
        long: number of truncated captions.
        cut: number of words cut off.
        cut_share: share of words cut off, summed over captions.
    """

    words: Counter[str] = field(default_factory=Counter)
    captions: int = 0
    long: int = 0
    cut: int = 0
    cut_share: float = 0.0

    def add(self, captions: Iterable[list[str]], max_length: int) -> "WordCounts":
        """Count captions, which are truncated to `max_length` words."""
        for caption in captions:
            self.words.update(caption)
            self.captions += 1
            self.long += len(caption) > max_length
            self.cut += max(0, len(caption) - max_length)
            self.cut_share += max(0.0, 1 - max_length / max(1, len(caption)))
        return self

    def update(self, other: "WordCounts") -> None:
        """Add the counts of another."""
        self.words.update(other.words)
        self.captions += other.captions
        self.long += other.long
        self.cut += other.cut
        self.cut_share += other.cut_share


class WordLoss(NamedTuple):
    """Words that do not reach the model for one reason.

    Attributes:
        least: lower confidence bound of their share, so that few words do not trigger an error.
        sentence: how many they are, and why.
        mend: what to do about it.
    """

    least: float
    sentence: str
    mend: str


def _least(count: int, of: int) -> float:
    """The lower end of Wilson's interval of a share, with two standard deviations."""
    share = count / of
    return (share + 2 / of - 2 * math.sqrt(share * (1 - share) / of + 1 / of**2)) / (1 + 4 / of)


def word_losses(
    counts: WordCounts, vocabulary: Vocabulary, split: str, max_length: int, min_count: int | None
) -> list[WordLoss]:
    """Words of a split that do not reach the model, by reason.

    Args:
        counts: of the split's captions.
        vocabulary: of the model.
        split: name of the split, for the messages.
        max_length: words of a caption in a batch.
        min_count: minimum occurrences of the vocabulary's words in training; None if the vocabulary comes from a file.
    """
    total, found = counts.words.total(), []
    words = vocabulary.tokens.name if vocabulary.tokens.spec in (Words.spec, "characters") else "tokens"
    spaceless = "for scripts without spaces between words, train with --data.tokens characters or a tokenizer's FILE"

    unknown = Counter({word: count for word, count in counts.words.items() if word not in vocabulary.ids})
    examples = ", ".join(repr(word[:40]) for word, _ in unknown.most_common(SHOWN))
    why = "the vocabulary file lacks them" if min_count is None else f"seen fewer than {min_count} times in training"
    mend = "give a vocabulary_file of these captions" if min_count is None else f"lower min_count, {min_count}"
    if unknown:
        count = unknown.total()
        sentence = f"{count} of {total} {words} of the {split} captions are unknown to the model ({count / total:.1%})"
        whose = f": {len(unknown)} distinct, such as {examples} ({why})"
        mend = f"{mend}; {spaceless}" if vocabulary.tokens.spec == Words.spec else mend
        found.append(WordLoss(_least(count, total), sentence + whose, mend))
    if counts.cut:  # the mean share, so that a single very long caption is not an error
        sentence = f"{counts.cut} of {total} {words} of the {split} captions are cut off ({counts.cut / total:.1%})"
        whose = f", in {counts.long} of {counts.captions} captions that have more than {max_length}"
        mend = "raise --data.max_length, and the model's max_length with it"
        found.append(WordLoss(counts.cut_share / counts.captions, sentence + whose, mend))
    if vocabulary.tokens.spec == Words.spec:
        share, examples = phrases(counts.words)
        if share:
            sentence = f"{share:.1%} of the letters of the {split} captions are in whole phrases that count as one word"
            found.append(WordLoss(share, f"{sentence}, such as {examples}", spaceless))
    return found


def report_words(found: Iterable[WordLoss], name: str, share: float = MAX_UNKNOWN) -> None:
    """Log the result of `word_losses` for the data called `name`.

    Raises:
        InputError: if a loss is more than `share`.
    """
    for lost in found:
        if lost.least > share:
            raise InputError(
                f"{name}: {lost.sentence}, more than {share:.0%}; {lost.mend}; or allow it with --data.max_unknown"
            )
        log.info("%s: %s", name, lost.sentence)
