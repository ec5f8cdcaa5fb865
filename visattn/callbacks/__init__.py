"""What is done beside training and evaluation: rates, files, sheets, and a look at whether attention is alive."""

from visattn.callbacks.attention import AttentionHealth, AttentionSheets
from visattn.callbacks.compilation import Compilation
from visattn.callbacks.exposure import ExposureReport, exposure_of
from visattn.callbacks.predictions import PredictionWriter
from visattn.callbacks.throughput import Throughput

__all__ = [
    "AttentionHealth",
    "AttentionSheets",
    "Compilation",
    "ExposureReport",
    "PredictionWriter",
    "Throughput",
    "exposure_of",
]
