"""Visual attention to read, train, compare and look at: captioners and Vision Transformers whose maps are right."""

__version__ = "0.1.0"
