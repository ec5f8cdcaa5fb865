"""Numbers about captions and attention: arrays and strings in, numbers out."""

from visattn.metrics.captions import CaptionScores, CiderD, DocumentFrequencies, caption_scores
from visattn.metrics.grounding import Grounding, entropy, grounding

__all__ = [
    "CaptionScores",
    "CiderD",
    "DocumentFrequencies",
    "Grounding",
    "caption_scores",
    "entropy",
    "grounding",
]
