"""Trained models without Lightning: folders of safetensors and JSON, or of ONNX graphs, written and read."""

from visattn.export.folder import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier, load_glimpses

__all__ = ["ExportedCaptioner", "ExportedClassifier", "load_captioner", "load_classifier", "load_glimpses"]
