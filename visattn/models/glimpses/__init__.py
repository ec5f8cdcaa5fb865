"""Glimpse models: a foveated sensor, a policy that moves it, and networks that remember what it saw."""

from visattn.models.glimpses.model import GlimpseModel, Scan, WholeView
from visattn.models.glimpses.networks import ContextNetwork, ConvolutionalTrunk, GlimpseNetwork
from visattn.models.glimpses.policy import (
    CentrePolicy,
    Fixation,
    GaussianPolicy,
    GridPolicy,
    LocationPolicy,
    RandomPolicy,
)
from visattn.models.glimpses.retina import Retina, Sensor, coverage

__all__ = [
    "CentrePolicy",
    "ContextNetwork",
    "ConvolutionalTrunk",
    "Fixation",
    "GaussianPolicy",
    "GlimpseModel",
    "GlimpseNetwork",
    "GridPolicy",
    "LocationPolicy",
    "RandomPolicy",
    "Retina",
    "Scan",
    "Sensor",
    "WholeView",
    "coverage",
]
