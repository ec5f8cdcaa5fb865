"""Exposure bias: accuracy at each position after the true words, and after the captioner's own.

In training it reads what a person wrote (teacher forcing), in use what it wrote itself, and an early slip can lead it
where it has never been (Bengio et al. 2015; "exposure bias" is Ranzato's word, 2016). Both are held to the same tokens
here. Position 0 is the first word, and END counts as the token after the last.

The gap between the two is not exposure bias alone. Many captions are right for an image, and after the first word in
which two of them differ, equal positions no longer mean the same. A model that follows the very law by which references
were drawn has no exposure bias and yet has a gap (of 37 points, in a made-up language of 40 words with captions of 12).
Therefore `another_reference` stands beside it: what a person gets, whose words are his own as well.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from visattn.vocabulary import END, PAD, UNKNOWN, Vocabulary


class ExposureGap(NamedTuple):
    """By position, over the references that have a token there; each is (T,), T the tokens of the longest reference.

    A token is right where it is the reference's own at the same position. UNKNOWN is never right: no caption may say
    it, and two people may mean different words by it.

    Attributes:
        tokens: how many references have a token here.
        loss: mean −log p of the reference's token after its true words, in nats.
        teacher_forced: share where the model's first choice after the true words is right.
        free_running: share where the caption that the model made of its own words is right. One that has ended, or was
            cut at its greatest length, is wrong from there on; END against END is right.
        teacher_forced_any: as `teacher_forced`, but the token of any reference of the image will do.
        free_running_any: as `free_running`, likewise. This pair is judged by one set of tokens at each position, and
            less by how references differ, but a word from the middle of another sentence will do too, and a model
            without exposure bias still has a gap here (of 25 points, in the language above).
        another_reference: share of the image's other references that are right, a person instead of the model. A model
            that drew captions as people write them would have this as its `free_running`; the likeliest captions of a
            good model tend to have more, for they say what most would say. Clearly less is a sign, though no
            proof, that captions go astray. NaN where no image has two references.
    """

    tokens: np.ndarray
    loss: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    teacher_forced_any: np.ndarray
    free_running_any: np.ndarray
    another_reference: np.ndarray


class ExposureSums(NamedTuple):
    """What an `ExposureGap` is made of, by position: sums over some images, to be added to those of others.

    Each is (T,), of numbers as `ExposureGap` has them before the division; `compared` counts the tokens of references
    that are not their image's only one. Images may be added in any order.
    """

    tokens: np.ndarray
    compared: np.ndarray
    loss: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    teacher_forced_any: np.ndarray
    free_running_any: np.ndarray
    another_reference: np.ndarray

    @classmethod
    def count(  # type: ignore[override]  # that of a tuple, which these sums are only by the way
        cls,
        targets: np.ndarray,
        log_probs: np.ndarray,
        first_choices: np.ndarray,
        generated: np.ndarray,
        owner: np.ndarray,
    ) -> "ExposureSums":
        """Count N images with all their references, B in all.

        Args:
            targets: (B, T) the references' tokens: the words and END, then PAD. Where the data cut a reference, it has
                its END there.
            log_probs: (B, T) log p of each target after the true words before it; not looked at where PAD.
            first_choices: (B, T) the likeliest token after the same words, of those that a caption may say there.
            generated: (N, S) each image's caption, made of its own words: the words and END, then PAD.
            owner: (B,) the image of each reference, as a row of `generated`.

        Raises:
            ValueError: if the arrays do not fit each other, or log-probabilities are positive or not numbers.
        """
        targets, first_choices, log_probs, generated, owner = map(
            np.asarray, (targets, first_choices, log_probs, generated, owner)
        )
        _check(targets, first_choices, owner)
        if log_probs.shape != targets.shape:
            raise ValueError(f"log_probs must have the targets' shape {targets.shape}, not {log_probs.shape}")
        if generated.ndim != 2 or set(owner.tolist()) != set(range(len(generated))):
            raise ValueError(f"owner must name each of the {len(generated)} rows of generated, and no other")
        targets, generated = _until_end(targets), _until_end(generated)
        there = targets != PAD
        if not (log_probs[there] < 1e-3).all():  # rounding may lift a certain token a little above 0
            raise ValueError("log_probs must be logarithms of probabilities, 0 at most")
        length = there.shape[1]
        generated = np.pad(generated[:, :length], ((0, 0), (0, max(0, length - generated.shape[1]))))[owner]

        # One number for an image, a position and a token, so that equal numbers are equal tokens at one place.
        place = owner[:, None] * length + np.arange(length)
        tokens = 1 + max(part.max(initial=0) for part in (targets, first_choices, generated))
        true, chosen, said = (place * tokens + part for part in (targets, first_choices, generated))
        _, which, alike = np.unique(true, return_inverse=True, return_counts=True)
        others = np.bincount(owner)[owner][:, None] - 1
        agreeing = (alike[which].reshape(true.shape) - 1) / np.maximum(others, 1)

        sayable = there & (targets != UNKNOWN)
        correct = sayable & (chosen == true), sayable & (said == true)
        allowed = [there & (part != PAD) & (part != UNKNOWN) for part in (first_choices, generated)]
        any_correct = allowed[0] & np.isin(chosen, true), allowed[1] & np.isin(said, true)
        parts = (
            there,
            there & (others > 0),
            np.where(there, -log_probs.astype(float), 0),
            *correct,
            *any_correct,
            np.where(sayable, agreeing, 0),
        )
        longest = int(there.sum(axis=1).max())
        return cls(*(part.sum(axis=0)[:longest] for part in parts))

    @classmethod
    def together(cls, parts: "Iterable[ExposureSums]") -> "ExposureSums":
        """The sums of several sets of images, at least one."""
        parts = list(parts)
        total = np.zeros((len(cls._fields), max(len(part.tokens) for part in parts)))
        for part in parts:
            total[:, : len(part.tokens)] += np.stack(part)
        tokens, compared, *rest = total
        return cls(tokens.astype(int), compared.astype(int), *rest)

    def by_position(self) -> ExposureGap:
        """The numbers of each position."""
        shares = [part / self.tokens for part in self[2:-1]]
        return ExposureGap(*(self.tokens, *shares, _share(self.another_reference, self.compared)))

    def overall(self) -> dict[str, float]:
        """The numbers of `ExposureGap` over all tokens, each token once, and two gaps: teacher-forced − free-running.

        `loss` is the cross-entropy per token.
        """
        total = ExposureSums(*(part.sum(keepdims=True) for part in self)).by_position()
        numbers = {name: float(value[0]) for name, value in total._asdict().items() if name != "tokens"}
        for kind in ("", "_any"):
            numbers[f"gap{kind}"] = numbers[f"teacher_forced{kind}"] - numbers[f"free_running{kind}"]
        return numbers


def teacher_forced_captions(
    targets: np.ndarray, first_choices: np.ndarray, owner: np.ndarray, vocabulary: Vocabulary
) -> list[list[str]]:
    """What is taken for each image's caption where teacher-forced BLEU is reported: the first choices in a row.

    No model writes such lines: each word was chosen after words of a person, and none knows the other chosen ones, so
    that a line need not be a sentence ("two dog and on a dogs"). Its score may lie above that of what the model writes
    by itself, or far below, and checkpoints should not be chosen by it. It is here to be set beside the other.

    An image is represented by the line of its first reference alone, so that both scores are of one line an image. A
    line ends at its first END, or where its reference does.

    Args:
        targets: see `ExposureSums.count`.
        first_choices: see `ExposureSums.count`.
        owner: see `ExposureSums.count`.
        vocabulary: what the ids stand for.

    Returns:
        N lists of words, by image.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    targets, first_choices, owner = map(np.asarray, (targets, first_choices, owner))
    _check(targets, first_choices, owner)
    lines = np.where(_until_end(targets) == PAD, PAD, first_choices)
    _, first = np.unique(owner, return_index=True)
    return [vocabulary.decode(line) for line in lines[first].tolist()]


def _until_end(tokens: np.ndarray) -> np.ndarray:
    """Tokens with PAD for whatever stands after the first END of a row."""
    ends = tokens == END
    return np.where(ends.cumsum(axis=1) > ends, PAD, tokens)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient, NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _check(targets: np.ndarray, first_choices: np.ndarray, owner: np.ndarray) -> None:
    """Raise ValueError where the arrays do not fit each other."""
    if targets.ndim != 2 or not (_until_end(targets) != PAD).any():
        raise ValueError(f"targets must be (B, T) with a token at least, and are {targets.shape}")
    if first_choices.shape != targets.shape:
        raise ValueError(f"first_choices must have the targets' shape {targets.shape}, not {first_choices.shape}")
    if owner.shape != targets.shape[:1]:
        raise ValueError(f"owner must be (B,) = {targets.shape[:1]}, and is {owner.shape}")
