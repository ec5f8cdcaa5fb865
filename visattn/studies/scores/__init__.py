"""Caption scores of files, as the official COCO tool gives them; `visattn evaluate` is the door."""

from visattn.studies.scores.scoring import TOKENIZERS, evaluate

__all__ = ["TOKENIZERS", "evaluate"]
