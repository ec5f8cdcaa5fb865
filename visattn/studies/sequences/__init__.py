"""Attention on sequences with a known alignment: tasks, a small model, and its scores.

A sentence is treated as an image with a grid of 1 × S places, so every mechanism works on it unchanged. Used by
`visattn sequences`.
"""

from visattn.studies.sequences.dates import Dates
from visattn.studies.sequences.model import MECHANISMS, Encoding, Mechanism, SequenceModel
from visattn.studies.sequences.tasks import LENGTHS, REORDERINGS, Batch, Reordering, Split, Task
from visattn.studies.sequences.training import BATCH, alignment, evaluate, train

TASKS: dict[str, Task] = {**REORDERINGS, "dates": Dates()}

__all__ = [
    "BATCH",
    "LENGTHS",
    "MECHANISMS",
    "REORDERINGS",
    "TASKS",
    "Batch",
    "Dates",
    "Encoding",
    "Mechanism",
    "Reordering",
    "SequenceModel",
    "Split",
    "Task",
    "alignment",
    "evaluate",
    "train",
]
