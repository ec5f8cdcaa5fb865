"""A library's own preprocessing of a picture, and the geometry that it has."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from visattn.errors import InputError
from visattn.images.geometry import CellShift, Geometry, Pair, pair

MAX_RESIZED = 80_000_000  # pixels of a picture on its way to the input: 240 MB

Fit = Callable[[Image.Image], tuple[Image.Image, Geometry]]


Scales = Callable[[tuple[int, int]], Pair]  # (h, w) of an image to the vertical and the horizontal scale of resizing it


def unchanged(sides: tuple[int, int]) -> Pair:
    """No resizing."""
    return 1.0, 1.0


def shortest_to(side: float) -> Scales:
    """So that the shorter side becomes `side`."""
    return lambda sides: (side / min(sides),) * 2


def covering(size: tuple[float, float]) -> Scales:
    """So that the image just covers `size` (h, w), in its own proportions."""
    return lambda sides: (max(n / side for n, side in zip(size, sides, strict=True)),) * 2


def squashed_to(size: tuple[float, float]) -> Scales:
    """So that the image becomes `size` (h, w), whatever its proportions."""
    return lambda sides: pair(n / side for n, side in zip(size, sides, strict=True))


def rounded_centre(resized: int, size: int) -> int:
    """Where the centre crop of torchvision begins."""
    return round((resized - size) / 2) if resized >= size else -((size - resized) // 2)


def centre(resized: int, size: int) -> int:
    """Where the centre crop of transformers begins."""
    return (resized - size) // 2 if resized >= size else -((size - resized) // 2)


class Fitting(NamedTuple):
    """Resize, then crop around the centre, or pad.

    Attributes:
        size: (h, w) of the model's input.
        scales: what `resize` aims at, up to whole pixels.
        resize: as the library does it.
        crop: to `size`, around the centre, as the library does it; where the image is smaller, it is padded on all
            sides. None crops where `begins` says, and pads with black.
        begins: of the sides before and after the crop, where the crop begins; negative where the image is padded.
    """

    size: tuple[int, int]
    scales: Scales
    resize: Callable[[Image.Image], Image.Image]
    crop: Callable[[Image.Image], Image.Image] | None = None
    begins: Callable[[int, int], int] = rounded_centre

    def at(self, cells: CellShift | Pair = (0.0, 0.0)) -> Fit:
        """From an upright RGB picture to the input image and its geometry.

        The function raises an `InputError` where the sides differ so much that the picture would become enormous on the
        way, or vanish.

        Args:
            cells: where the cells of the model's maps look, as `Geometry.cell_shift`.
        """

        def fit(image: Image.Image) -> tuple[Image.Image, Geometry]:
            sides, size = (image.height, image.width), self.size
            height, width = (side * scale for side, scale in zip(sides, self.scales(sides), strict=True))
            if height * width > MAX_RESIZED or min(height, width) < 1:
                raise InputError(
                    f"an image of {image.width}×{image.height} pixels cannot be resized to {size[1]}×{size[0]}: "
                    "its sides differ too much; crop it first"
                )
            resized = self.resize(image)
            scale = (resized.height / image.height, resized.width / image.width)
            top, left = (self.begins(r, s) for r, s in zip((resized.height, resized.width), size, strict=True))
            box = (left, top, left + size[1], top + size[0])
            cropped = self.crop(resized) if self.crop else resized.crop(box)
            return cropped, Geometry(sides, size, scale, (float(top), float(left)), cells)

        return fit
