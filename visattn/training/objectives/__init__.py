"""Training objectives. They depend on logits, glimpses and tokens, not on a model."""

from visattn.training.objectives.glimpses import GlimpseLoss, GlimpseLosses
from visattn.training.objectives.likelihood import CaptionLoss, CaptionLosses, CaptionSums, doubly_stochastic_penalty
from visattn.training.objectives.reinforce import (
    ArcticReinforce,
    Baseline,
    LearnedValue,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    Reinforce,
    gradient_share,
)
from visattn.training.objectives.schedules import ExponentialDecay, InverseSigmoidDecay, LinearDecay, Schedule
from visattn.training.objectives.self_critical import SelfCriticalLoss

__all__ = [
    "ArcticReinforce",
    "Baseline",
    "CaptionLoss",
    "CaptionLosses",
    "CaptionSums",
    "ExponentialDecay",
    "GlimpseLoss",
    "GlimpseLosses",
    "InverseSigmoidDecay",
    "LearnedValue",
    "LeaveOneOut",
    "LinearDecay",
    "MovingAverage",
    "NoBaseline",
    "Reinforce",
    "Schedule",
    "SelfCriticalLoss",
    "doubly_stochastic_penalty",
    "gradient_share",
]
