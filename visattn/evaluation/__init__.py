"""Validation and test: per-image results, gathered from all processes, and the metrics computed from them."""

from visattn.evaluation.captions import CaptionEvaluation, EvaluatedImage
from visattn.evaluation.gathering import collect

__all__ = ["CaptionEvaluation", "EvaluatedImage", "collect"]
