"""Images: reading files, fitting to a model's input, and mapping back. NumPy and Pillow, no PyTorch."""

from visattn.images.geometry import CellShift, Fit, Geometry, Interpolation, ModelInput, fit_geometry, fit_image
from visattn.images.reading import OddSizeError, decode_image, image_size, list_images, load_image

__all__ = [
    "CellShift",
    "Fit",
    "Geometry",
    "Interpolation",
    "ModelInput",
    "OddSizeError",
    "decode_image",
    "fit_geometry",
    "fit_image",
    "image_size",
    "list_images",
    "load_image",
]
