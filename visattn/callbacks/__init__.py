"""Callbacks: cached features, throughput, predictions, attention sheets, checks for non-finite numbers."""

from visattn.callbacks.attention import AttentionHealth, AttentionSheets
from visattn.callbacks.compilation import Compilation
from visattn.callbacks.divergence import StopWhenNotFinite
from visattn.callbacks.exposure import ExposureReport, exposure_of
from visattn.callbacks.features import FeatureCache
from visattn.callbacks.predictions import PredictionWriter
from visattn.callbacks.throughput import Throughput

__all__ = [
    "AttentionHealth",
    "AttentionSheets",
    "Compilation",
    "ExposureReport",
    "FeatureCache",
    "PredictionWriter",
    "StopWhenNotFinite",
    "Throughput",
    "exposure_of",
]
