"""Images with captions or labels: files or generated scenes as batches (`CaptionBatch`, `ImageBatch`).

This package does not depend on models, metrics or drawing; models normalise its uint8 images. Classes are imported
lazily, so that reading a caption file needs no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visattn.data.batch import CaptionBatch, ImageBatch
    from visattn.data.captions import CaptionData, CaptionedImage
    from visattn.data.cifar import CIFAR10, CIFAR100
    from visattn.data.classification import ClassificationData
    from visattn.data.cluttered import ShapesCluttered
    from visattn.data.instances import Instances
    from visattn.data.mnist import MNIST
    from visattn.data.photographs import Photographs
    from visattn.data.shapes import ShapesCaptions, ShapesClasses
    from visattn.data.shards import Shards

_MODULES = {
    "CIFAR10": "cifar",
    "CIFAR100": "cifar",
    "MNIST": "mnist",
    "CaptionBatch": "batch",
    "CaptionData": "captions",
    "CaptionedImage": "captions",
    "ClassificationData": "classification",
    "ImageBatch": "batch",
    "Instances": "instances",
    "Photographs": "photographs",
    "ShapesCaptions": "shapes",
    "ShapesClasses": "shapes",
    "ShapesCluttered": "cluttered",
    "Shards": "shards",
}

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "CaptionBatch",
    "CaptionData",
    "CaptionedImage",
    "ClassificationData",
    "ImageBatch",
    "Instances",
    "Photographs",
    "ShapesCaptions",
    "ShapesClasses",
    "ShapesCluttered",
    "Shards",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
