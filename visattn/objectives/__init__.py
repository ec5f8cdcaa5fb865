"""What training minimises. Objectives see logits, glimpses and tokens; they know no model."""

from visattn.objectives.likelihood import CaptionLoss, CaptionLosses, doubly_stochastic_penalty
from visattn.objectives.reinforce import (
    ArcticReinforce,
    Baseline,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    Reinforce,
)

__all__ = [
    "ArcticReinforce",
    "Baseline",
    "CaptionLoss",
    "CaptionLosses",
    "LeaveOneOut",
    "MovingAverage",
    "NoBaseline",
    "Reinforce",
    "doubly_stochastic_penalty",
]
