"""A run's life: its folder, which it has for itself, and going on after it was stopped."""

from visattn.training.runs.configuration import SavedConfiguration
from visattn.training.runs.folder import claimed, require_writable
from visattn.training.runs.inputs import protect_inputs
from visattn.training.runs.resuming import LAST, LastCheckpoint, latest
from visattn.training.runs.trainer import Trainer

__all__ = [
    "LAST",
    "LastCheckpoint",
    "SavedConfiguration",
    "Trainer",
    "claimed",
    "latest",
    "protect_inputs",
    "require_writable",
]
