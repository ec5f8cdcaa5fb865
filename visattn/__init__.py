"""Visual attention: train, compare and visualise captioners and Vision Transformers, with maps that are right."""

from visattn.registry import register

__version__ = "0.1.0"

__all__ = ["register"]
