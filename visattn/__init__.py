"""Visual attention to read, train, compare and look at: captioners and Vision Transformers whose maps are right."""

from visattn.registry import register

__version__ = "0.1.0"

__all__ = ["register"]
