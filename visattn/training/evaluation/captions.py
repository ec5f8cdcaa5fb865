"""Per-image results of a captioner in validation and test, and the metrics logged from them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from visattn.metrics import (
    CHAIR,
    ExposureSums,
    Grounding,
    Health,
    Mentions,
    Verdict,
    caption_scores,
    hallucination_scores,
    repeat_share,
    truth_scores,
)


class EvaluatedImage(NamedTuple):
    """Results of an image in validation or test; kept small, since processes exchange them.

    Attributes:
        words: of the generated caption.
        forced: of the teacher-forced "caption".
        loss: summed over the references' tokens.
        exposure: accuracies by position.
        health: attention statistics of the generated words, or None if there are none.
        gate: sum of β over the generated words.
        grounding: of the generated words.
        true_grounding: of the references' words.
        verdict: how much of the generated caption is true, or None if the data does not provide it.
        mentions: the objects that it names, and those in the image, or None if the data does not provide them.
    """

    words: list[str]
    forced: list[str]
    loss: float
    exposure: ExposureSums
    health: Health | None
    gate: float
    grounding: Grounding
    true_grounding: Grounding
    verdict: Verdict | None = None
    mentions: Mentions | None = None


class CaptionEvaluation(NamedTuple):
    """A validation or test of a captioner.

    Attributes:
        images: results by image id.
    """

    images: dict[str, EvaluatedImage]

    @property
    def health(self) -> Health | None:
        """Attention statistics over all captions; None if there are no words."""
        known = [image.health for image in self.images.values() if image.health is not None]
        return Health.together(known) if known else None

    @property
    def gate(self) -> float:
        """The mean of β over the words; 1 if the decoder has no gate."""
        words = sum(len(image.words) for image in self.images.values())
        return sum(image.gate for image in self.images.values()) / max(1, words)

    @property
    def exposure(self) -> ExposureSums:
        """Counts for exposure bias, over all images."""
        return ExposureSums.together(image.exposure for image in self.images.values())

    def scores(self, references: Mapping[str, Sequence[list[str]]]) -> dict[str, float]:
        """All scores, by name.

        Args:
            references: by image id, including all evaluated images.

        Returns:
            `loss`, the scores of generated captions, `teacher_forced_…` ones, `gap` and the accuracies behind it, the
            shares of captions with a repeated bigram (`repeats`, `reference_repeats`), attention statistics,
            `grounding_…` if words were scored against regions, and, if the data provides the content of its images,
            `true` and the other scores of `truth_scores`, or `CHAIR-i` and the others of `hallucination_scores`.
        """
        references = {name: references[name] for name in self.images}
        own = caption_scores(references, {name: image.words for name, image in self.images.items()}).corpus
        forced = caption_scores(references, {name: image.forced for name, image in self.images.items()}).corpus
        images, exposure, health = list(self.images.values()), self.exposure, self.health
        numbers = exposure.overall()
        scores = {
            "loss": sum(image.loss for image in images) / int(exposure.tokens.sum()),
            "cross_entropy": numbers["loss"],
            **own,
            **{f"teacher_forced_{name}": value for name, value in forced.items()},
            **{f"{name}_accuracy": numbers[name] for name in ("teacher_forced", "free_running", "another_reference")},
            "gap": numbers["gap"],
            "words": sum(len(image.words) for image in images) / len(images),
            "repeats": repeat_share(image.words for image in images),
            "reference_repeats": repeat_share(line for lines in references.values() for line in lines),
            "attention_gate": self.gate,
        }
        if health is not None:
            scores |= {f"attention_{name}": value for name, value in health.known().items()}
        found = {
            "grounding": Grounding.together(image.grounding for image in images),
            "ground_truth_grounding": Grounding.together(image.true_grounding for image in images),
        }
        if any(scored.words for scored in found.values()):
            for title, scored in found.items():
                scores |= {f"{title}_{name}": float(value) for name, value in scored._asdict().items()}
        if verdicts := [image.verdict for image in images if image.verdict is not None]:
            scores |= truth_scores(verdicts)
        if mentions := [image.mentions for image in images if image.mentions is not None]:
            scores |= dict.fromkeys(CHAIR, math.nan) | hallucination_scores(mentions)  # may be monitored
        return scores
