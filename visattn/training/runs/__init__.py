"""Training runs: exclusive use of their folder, and resuming."""

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
