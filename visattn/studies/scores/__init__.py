"""Scores of caption files, equal to the official COCO tool's; used by `visattn evaluate`."""

from visattn.studies.scores.scoring import TOKENIZERS, evaluate

__all__ = ["TOKENIZERS", "evaluate"]
