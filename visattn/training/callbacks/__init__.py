"""Callbacks: cached features, throughput, predictions, attention sheets, checks for non-finite numbers."""

from visattn.training.callbacks.attention import AttentionHealth, AttentionSheets
from visattn.training.callbacks.compilation import Compilation
from visattn.training.callbacks.divergence import StopWhenNotFinite
from visattn.training.callbacks.exposure import ExposureReport, exposure_of
from visattn.training.callbacks.features import FeatureCache
from visattn.training.callbacks.predictions import PredictionWriter
from visattn.training.callbacks.stopping import StoppingReport
from visattn.training.callbacks.throughput import Throughput

__all__ = [
    "AttentionHealth",
    "AttentionSheets",
    "Compilation",
    "ExposureReport",
    "FeatureCache",
    "PredictionWriter",
    "StopWhenNotFinite",
    "StoppingReport",
    "Throughput",
    "exposure_of",
]
