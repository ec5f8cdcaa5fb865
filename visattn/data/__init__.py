"""Images with captions or labels, as batches: what is on a disk or generated becomes `CaptionBatch` or `ImageBatch`.

This room knows no model, no metric and no drawing; models normalise the uint8 images that it hands over.
"""

from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.data.captions import CaptionData, CaptionedImage
from visattn.data.cifar import CIFAR10, CIFAR100
from visattn.data.classification import ClassificationData
from visattn.data.images import list_images, load_image
from visattn.data.instances import Instances
from visattn.data.photographs import Photographs
from visattn.data.shapes import ShapesCaptions, ShapesClasses
from visattn.data.shards import Shards

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CaptionBatch",
    "CaptionData",
    "CaptionedImage",
    "ClassificationData",
    "ImageBatch",
    "Instances",
    "Photographs",
    "ShapesCaptions",
    "ShapesClasses",
    "Shards",
    "list_images",
    "load_image",
]
