"""Validation and test: what is kept of an image, gathered from all processes once, and the numbers of it all."""

from visattn.training.evaluation.captions import CaptionEvaluation, EvaluatedImage
from visattn.training.evaluation.gathering import collect

__all__ = ["CaptionEvaluation", "EvaluatedImage", "collect"]
