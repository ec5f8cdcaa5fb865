"""Training objectives. They depend on logits, glimpses and tokens, not on a certain model."""

from visattn.training.objectives.enumeration import Enumeration
from visattn.training.objectives.estimator import Estimate, Estimator
from visattn.training.objectives.glimpses import GlimpseLoss, GlimpseLosses
from visattn.training.objectives.learned_baseline import LearnedBaseline
from visattn.training.objectives.likelihood import (
    CaptionLoss,
    CaptionLosses,
    CaptionSums,
    doubly_stochastic_penalty,
    rerun_of,
)
from visattn.training.objectives.rebar import Rebar
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
from visattn.training.objectives.relax import Relax
from visattn.training.objectives.schedules import ExponentialDecay, InverseSigmoidDecay, LinearDecay, Schedule
from visattn.training.objectives.self_critical import SelfCriticalLoss
from visattn.training.objectives.vimco import Vimco
from visattn.training.objectives.without_replacement import WithoutReplacement

__all__ = [
    "ArcticReinforce",
    "Baseline",
    "CaptionLoss",
    "CaptionLosses",
    "CaptionSums",
    "Enumeration",
    "Estimate",
    "Estimator",
    "ExponentialDecay",
    "GlimpseLoss",
    "GlimpseLosses",
    "InverseSigmoidDecay",
    "LearnedBaseline",
    "LearnedValue",
    "LeaveOneOut",
    "LinearDecay",
    "MovingAverage",
    "NoBaseline",
    "Rebar",
    "Reinforce",
    "Relax",
    "Schedule",
    "SelfCriticalLoss",
    "Vimco",
    "WithoutReplacement",
    "doubly_stochastic_penalty",
    "gradient_share",
    "rerun_of",
]
