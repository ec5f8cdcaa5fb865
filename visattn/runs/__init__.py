"""Training runs: exclusive use of their folder, and resuming."""

from visattn.runs.configuration import SavedConfiguration
from visattn.runs.folder import claimed, require_writable
from visattn.runs.inputs import protect_inputs
from visattn.runs.resuming import LAST, LastCheckpoint, latest
from visattn.runs.trainer import Trainer

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
