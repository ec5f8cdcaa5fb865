"""Exposure bias: accuracy by position after reference words (teacher forcing), and after the model's own words.

In training a captioner reads reference words, in use its own, so an early error can lead it to states that it has never
been trained on (Bengio et al. 2015; the term "exposure bias" is from Ranzato et al. 2016). Both modes are scored here
against the same tokens. Position 0 is the first word; END counts as the token after the last word.

The gap between the two modes is not exposure bias alone. An image has many correct captions, and once two of them
differ, equal positions are no longer comparable. A model that samples from the exact distribution of the references has
no exposure bias, but still a gap (37 points in an artificial language of 40 words with captions of 12). For comparison,
`another_reference` therefore gives the human score: the accuracy of the image's other references.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from visattn.vocabulary import END, PAD, UNKNOWN, Vocabulary


class ExposureGap(NamedTuple):
    """Accuracy by position, over the references with a token there; arrays (T,), T tokens in the longest reference.

    A token is correct if it equals the reference's token at the same position. UNKNOWN is never correct: captions
    cannot contain it, and it may stand for different words.

    Attributes:
        tokens: number of references with a token at this position.
        loss: mean −log p of the reference's token under teacher forcing, in nats.
        teacher_forced: share of references for which the model's most likely token, under teacher forcing, is correct.
        free_running: share of references for which the generated caption's token is correct. After its end, or after
            the greatest length, a caption is wrong; END where the reference has END is correct.
        teacher_forced_any: as `teacher_forced`, but the token of any of the image's references is accepted.
        free_running_any: as `free_running`, but the token of any of the image's references is accepted. The gap between
            these two depends less on how references differ, but it also accepts words from the middle of another
            sentence, and a model without exposure bias still has a gap (25 points in the language above).
        another_reference: share of the image's other references that are correct. A model that samples captions as
            people write them would have this as its `free_running`. The most likely captions of a good model tend to
            score higher, since they say what most people would say; a clearly lower score suggests, but does not
            prove, exposure bias. NaN where no image has two references.
    """

    tokens: np.ndarray
    loss: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    teacher_forced_any: np.ndarray
    free_running_any: np.ndarray
    another_reference: np.ndarray


class ExposureSums(NamedTuple):
    """The sums behind an `ExposureGap`, by position, for a set of images.

    Arrays (T,), as in `ExposureGap` before division; `compared` counts the tokens of references whose image has other
    references. Sums of several sets can be added in any order.
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
        """The sums over N images with B references in total.

        Args:
            targets: (B, T) the references' tokens: words and END, then PAD. A truncated reference has END at the cut.
            log_probs: (B, T) log p of each target under teacher forcing; ignored where PAD.
            first_choices: (B, T) the most likely token under teacher forcing, of those allowed in a caption.
            generated: (N, S) the generated caption of each image: words and END, then PAD.
            owner: (B,) index of each reference's image in `generated`.

        Raises:
            ValueError: if the arrays have inconsistent shapes, or log-probabilities are positive or NaN.
        """
        targets, first_choices, log_probs, generated, owner = map(
            np.asarray, (targets, first_choices, log_probs, generated, owner)
        )
        _check(targets, first_choices, owner)
        if log_probs.shape != targets.shape:
            raise ValueError(f"log_probs must have the targets' shape {targets.shape}, not {log_probs.shape}")
        if generated.ndim != 2 or set(owner.tolist()) != set(range(len(generated))):
            raise ValueError(f"owner must contain each of the {len(generated)} rows of generated, and no others")
        targets, generated = _until_end(targets), _until_end(generated)
        there = targets != PAD
        if not (log_probs[there] < 1e-3).all():  # rounding may give slightly more than 0
            raise ValueError("log_probs must be logarithms of probabilities, 0 at most")
        length = there.shape[1]
        generated = np.pad(generated[:, :length], ((0, 0), (0, max(0, length - generated.shape[1]))))[owner]

        # One number for each (image, position, token), so that tokens at the same position of an image can be compared.
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
        """Accuracies and loss by position."""
        shares = [part / self.tokens for part in self[2:-1]]
        return ExposureGap(*(self.tokens, *shares, _share(self.another_reference, self.compared)))

    def overall(self) -> dict[str, float]:
        """The values of `ExposureGap` over all tokens, and the two gaps (teacher-forced − free-running).

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
    """The sequence of the model's teacher-forced predictions for each image, as in teacher-forced BLEU.

    No model writes these captions: each word was predicted from reference words, not from the predictions before it, so
    the result need not be a sentence ("two dog and on a dogs"). Its score may be above that of the model's generated
    captions, or far below; do not select checkpoints by it. It is computed only for comparison.

    Only the first reference of an image is used, so that both scores are of one caption per image. A caption ends at
    its first END, or where its reference ends.

    Args:
        targets: see `ExposureSums.count`.
        first_choices: see `ExposureSums.count`.
        owner: see `ExposureSums.count`.
        vocabulary: the words of the ids.

    Returns:
        A list of words for each of the N images.

    Raises:
        ValueError: if the arrays have inconsistent shapes.
    """
    targets, first_choices, owner = map(np.asarray, (targets, first_choices, owner))
    _check(targets, first_choices, owner)
    lines = np.where(_until_end(targets) == PAD, PAD, first_choices)
    _, first = np.unique(owner, return_index=True)
    return [vocabulary.decode(line) for line in lines[first].tolist()]


def _until_end(tokens: np.ndarray) -> np.ndarray:
    """Tokens with everything after the first END of a row replaced by PAD."""
    ends = tokens == END
    return np.where(ends.cumsum(axis=1) > ends, PAD, tokens)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _check(targets: np.ndarray, first_choices: np.ndarray, owner: np.ndarray) -> None:
    """Raise a ValueError if the arrays have inconsistent shapes."""
    if targets.ndim != 2 or not (_until_end(targets) != PAD).any():
        raise ValueError(f"targets must be (B, T) with at least one token, not {targets.shape}")
    if first_choices.shape != targets.shape:
        raise ValueError(f"first_choices must have the targets' shape {targets.shape}, not {first_choices.shape}")
    if owner.shape != targets.shape[:1]:
        raise ValueError(f"owner must be (B,) = {targets.shape[:1]}, not {owner.shape}")
