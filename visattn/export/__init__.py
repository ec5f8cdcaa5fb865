"""Trained models without Lightning: folders of safetensors and JSON, and of ONNX graphs; and back from there."""

from visattn.export.folder import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier

__all__ = ["ExportedCaptioner", "ExportedClassifier", "load_captioner", "load_classifier"]
