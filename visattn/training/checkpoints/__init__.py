"""Checkpoints: written atomically, read without executing code, and compared with the command line before use."""

from visattn.export.shipped import SHIPPED, is_exported
from visattn.training.checkpoints.agreement import Difference, differences, require_agreement
from visattn.training.checkpoints.reading import load_model, read, trained
from visattn.training.checkpoints.transfer import start_from
from visattn.training.checkpoints.writing import WholeCheckpoints, remove_unfinished

__all__ = [
    "SHIPPED",
    "Difference",
    "WholeCheckpoints",
    "differences",
    "is_exported",
    "load_model",
    "read",
    "remove_unfinished",
    "require_agreement",
    "start_from",
    "trained",
]
