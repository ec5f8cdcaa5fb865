"""Trained models without Lightning: writing and reading folders of safetensors and JSON, or of ONNX graphs."""

from visattn.export.folder import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier, load_glimpses

__all__ = ["ExportedCaptioner", "ExportedClassifier", "load_captioner", "load_classifier", "load_glimpses"]
