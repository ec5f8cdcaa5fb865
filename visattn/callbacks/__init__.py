"""What is done beside training and evaluation: features kept, rates, files, sheets, a look at whether all is well."""

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
