"""CHAIR: objects that a caption names, but that are not in the photograph (Rohrbach et al. 2018, section 2.1).

Caption scores hardly notice a single wrong noun. Where all objects of a set of categories are annotated, as COCO's 80
are, the nouns that name them can be checked.
"""

from collections.abc import Sequence
from typing import NamedTuple

CHAIR = ("CHAIR-i", "CHAIR-s", "object_recall")  # scores that may be undefined


class Mentions(NamedTuple):
    """The objects that a caption names, and those in its image.

    Attributes:
        named: the category of each mention, in the caption's order; a category may occur more than once.
        present: the categories in the image.
    """

    named: tuple[str, ...]
    present: frozenset[str]

    @property
    def absent(self) -> tuple[str, ...]:
        """Mentions of what is not in the image."""
        return tuple(category for category in self.named if category not in self.present)


def hallucination_scores(captions: Sequence[Mentions]) -> dict[str, float]:
    """Scores of a set of captions, by name.

    Returns:
        `CHAIR-i`, the share of mentions whose object is absent, and `CHAIR-s`, the share of captions with such a
        mention (equations 1 and 2 of the paper); `object_recall`, the share of the images' categories that their
        captions name, since a caption that names nothing is never wrong; and `mentions` per caption. CHAIR is left out
        if no caption names anything, and `object_recall` if no image has an object.

    Raises:
        ValueError: if there is no caption.
    """
    if not captions:
        raise ValueError("there are no captions to score")
    mentions = sum(len(caption.named) for caption in captions)
    present = sum(len(caption.present) for caption in captions)
    scores = {}
    if mentions:
        scores["CHAIR-i"] = sum(len(caption.absent) for caption in captions) / mentions
        scores["CHAIR-s"] = sum(bool(caption.absent) for caption in captions) / len(captions)
    if present:
        scores["object_recall"] = sum(len(caption.present & set(caption.named)) for caption in captions) / present
    return scores | {"mentions": mentions / len(captions)}
