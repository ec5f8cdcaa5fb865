"""Validation and test: per-image results, gathered from all processes, and the metrics computed from them."""

from visattn.training.evaluation.captions import CaptionEvaluation, EvaluatedImage
from visattn.training.evaluation.gathering import collect

__all__ = ["CaptionEvaluation", "EvaluatedImage", "collect"]
