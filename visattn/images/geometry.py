"""The transformation from an image to the model's input, and its inverse.

Coordinates are continuous, in pixels from the top-left *edge*, so the centre of pixel (0, 0) is at (0.5, 0.5). All
pairs are (vertical, horizontal): (height, width), (top, left), (y, x). "Original" always means the upright image, after
its EXIF orientation has been applied, as `visattn.images.load_image` returns it.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from visattn.errors import InputError

Fit = Literal["crop", "pad", "squash"]
Interpolation = Literal["bilinear", "nearest"]

PAD_COLOUR = (124, 116, 104)  # ImageNet's mean, which is near 0 after normalisation

Pair = tuple[float, float]
_T = TypeVar("_T")


def pair(both: Iterable[_T]) -> tuple[_T, _T]:
    """The values of the vertical and the horizontal axis, as a tuple."""
    vertical, horizontal = both
    return vertical, horizontal


class CellShift(Pair):
    """Positions of a map's cells in the input: on each axis, cell i is centred at pixel ``(i + ½) stride + shift``.

    The tuple itself is the shift (vertical, horizontal), 0 if each cell is centred on its own square of pixels.

    Attributes:
        stride: (vertical, horizontal) input pixels between neighbouring cells.
        seen: (top, left), (bottom, right) of the pixels that reach any cell; patches that do not divide the input
            leave out the remainder.
    """

    stride: Pair
    seen: tuple[Pair, Pair]

    def __new__(cls, shift: Pair, stride: Pair, seen: tuple[Pair, Pair]) -> "CellShift":
        self = super().__new__(cls, shift)
        self.stride, self.seen = pair(stride), pair(map(pair, seen))
        return self

    def __getnewargs__(self) -> tuple[Pair, Pair, tuple[Pair, Pair]]:
        return pair(self), self.stride, self.seen

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CellShift):
            return self.__getnewargs__() == other.__getnewargs__()
        return tuple(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        return f"CellShift{self.__getnewargs__()}"


class Geometry(NamedTuple):
    """The axis-aligned map from an original image to the model's input: ``input = original * scale - offset``.

    Attributes:
        original: (H, W) of the original image.
        input: (h, w) of the model's input.
        scale: (vertical, horizontal) size of an original pixel, in input pixels.
        offset: (top, left) of the input's window in the resized image, in input pixels; negative with padding.
        cell_shift: positions of a map's cells; see `CellShift`. A plain pair (vertical, horizontal) is a shift in input
            pixels of cells that divide the input evenly, as they do by default.
    """

    original: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]
    cell_shift: CellShift | Pair = (0.0, 0.0)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> "Geometry":
        """The geometry of an image of `size` (H, W) that is the model's input without change."""
        return cls(size, size, (1.0, 1.0), (0.0, 0.0))

    @classmethod
    def from_array(cls, numbers: np.ndarray) -> "Geometry":
        """The inverse of `to_array`.

        Raises:
            ValueError: if there are not five or eight pairs of finite numbers, or a size, scale or stride is not
                positive.
        """
        numbers = np.asarray(numbers, dtype=float)
        positive = [0, 1, 2, 5][: 3 + (len(numbers) == 8)]
        if numbers.shape not in ((5, 2), (8, 2)) or not np.isfinite(numbers).all() or numbers[positive].min() <= 0:
            raise ValueError(f"a geometry is 5 or 8 pairs of numbers, sizes and scale positive, not {numbers}")
        original, size, scale, offset, shift, *cells = map(pair, numbers.tolist())
        shift = CellShift(shift, cells[0], (cells[1], cells[2])) if cells else shift
        return cls(pair(map(int, original)), pair(map(int, size)), scale, offset, shift)

    def to_array(self) -> np.ndarray:
        """(5, 2) float64, the attributes in order; (8, 2) with `stride` and `seen` of a `CellShift`."""
        cells = (self.cell_shift.stride, *self.cell_shift.seen) if isinstance(self.cell_shift, CellShift) else ()
        return np.array((*self, *cells), dtype=np.float64)

    def cells(self, grid: tuple[int, int]) -> CellShift:
        """Positions of the cells of a map of `grid` (h, w)."""
        if isinstance(self.cell_shift, CellShift):
            return self.cell_shift
        stride = pair(n / cells for n, cells in zip(self.input, grid, strict=True))
        return CellShift(self.cell_shift, stride, ((0.0, 0.0), pair(map(float, self.input))))

    def centres(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The (h,) vertical and (w,) horizontal centres of a map's cells, in input pixels."""
        cells = self.cells(grid)
        return pair((np.arange(n) + 0.5) * d + s for n, d, s in zip(grid, cells.stride, cells, strict=True))

    def edges(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The (h + 1,) vertical and (w + 1,) horizontal edges of a map's cells, in input pixels.

        The first and the last cell are extended to all that was seen, so each seen pixel is in the cell whose value it
        gets in `to_original_map` with "nearest".
        """
        cells, bounds = self.cells(grid), []
        for n, stride, shift, low, high in zip(grid, cells.stride, cells, *self.seen, strict=True):
            inner = np.clip(np.arange(1, n) * stride + shift, low, high)
            bounds.append(np.concatenate([[low], inner, [high]]))
        return pair(bounds)

    def resized(self, size: tuple[int, int]) -> "Geometry":
        """The geometry from the original, resized to `size` (H, W), to the same input."""
        scale = pair(s * was / now for s, was, now in zip(self.scale, self.original, size, strict=True))
        return self._replace(original=size, scale=scale)

    def to_input(self, points: np.ndarray) -> np.ndarray:
        """Original coordinates (..., 2) to input coordinates (..., 2), both (y, x) in pixels."""
        return np.asarray(points, dtype=float) * self.scale - self.offset

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Input coordinates (..., 2) to original coordinates (..., 2), both (y, x) in pixels."""
        return (np.asarray(points, dtype=float) + self.offset) / self.scale

    @property
    def seen(self) -> tuple[Pair, Pair]:
        """(top, left), (bottom, right) of the pixels that reach any cell, in input pixels, clipped to the input."""
        low, high = ((0.0, 0.0), self.input) if not isinstance(self.cell_shift, CellShift) else self.cell_shift.seen
        low = pair(max(a, 0.0) for a in low)
        return low, pair(float(min(b, n)) for b, n in zip(high, self.input, strict=True))

    def visible(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of what the model sees, in original pixels, clipped to the original image."""
        (top, left), (bottom, right) = self.to_original(np.array(self.seen))
        height, width = self.original
        return max(top, 0.0), max(left, 0.0), min(bottom, float(height)), min(right, float(width))

    def to_original_map(self, weights: np.ndarray, interpolation: Interpolation = "bilinear") -> np.ndarray:
        """Resample a map to the original pixels.

        Args:
            weights: (..., h, w), a value for each cell; any grid is allowed if cells divide the input evenly.
            interpolation: "bilinear" between the centres of cells, or "nearest" for constant cells.

        Returns:
            (..., H, W) float32 values at the centres of the original pixels, NaN outside of what the model sees. Values
            are interpolated, not redistributed or normalised: a cell keeps its value for any size.
        """
        weights = np.asarray(weights, dtype=np.float32)
        centres = [(np.arange(n) + 0.5) * s - o for n, s, o in zip(self.original, self.scale, self.offset, strict=True)]
        grid = weights.shape[-2:]
        cells = self.cells(grid)
        rows, columns = (
            _interpolator((centre - shift) / stride, n, interpolation)
            for centre, shift, stride, n in zip(centres, cells, cells.stride, grid, strict=True)
        )
        spread = rows @ weights @ columns.T
        inside_y, inside_x = ((c >= low) & (c <= high) for c, low, high in zip(centres, *self.seen, strict=True))
        return np.where(inside_y[:, None] & inside_x[None, :], spread, np.float32(np.nan))

    def to_input_mask(self, mask: np.ndarray) -> np.ndarray:
        """Resample a boolean mask (H, W) over the original to one over the input (h, w), by nearest pixel."""
        centres = [(np.arange(n) + 0.5 + o) / s for n, s, o in zip(self.input, self.scale, self.offset, strict=True)]
        (y, y_inside), (x, x_inside) = (
            (np.clip(np.floor(c).astype(int), 0, n - 1), (c >= 0) & (c < n))
            for c, n in zip(centres, self.original, strict=True)
        )
        return mask[np.ix_(y, x)] & y_inside[:, None] & x_inside[None, :]


def _interpolator(position: np.ndarray, cells: int, interpolation: Interpolation) -> np.ndarray:
    """(n, cells) matrix that interpolates `cells` values at n positions, in units of cells; its rows sum to 1."""
    if interpolation == "nearest":
        index = np.clip(np.floor(position).astype(int), 0, cells - 1)
        return np.eye(cells, dtype=np.float32)[index]
    distance = np.abs(np.clip(position - 0.5, 0, cells - 1)[:, None] - np.arange(cells))
    return np.maximum(1 - distance, 0).astype(np.float32)


def fit_geometry(original: tuple[int, int], size: tuple[int, int], fit: Fit = "crop") -> Geometry:
    """The geometry of `fit_image`, from the sizes alone.

    Args:
        original: (H, W) of the upright image, in pixels.
        size: (h, w) of the input, in pixels.
        fit: see `fit_image`.

    Raises:
        InputError: if the shorter side would be less than one pixel.
    """
    height, width = original
    if fit == "squash":
        scale = (size[0] / height, size[1] / width)
    else:
        choose = max if fit == "crop" else min
        scale = (choose(size[0] / height, size[1] / width),) * 2
    if height * scale[0] < 1 or width * scale[1] < 1:
        raise InputError(
            f"an image of {width}×{height} pixels cannot be resized to {size[1]}×{size[0]} with fit '{fit}': "
            "its shorter side would be less than one pixel; crop it first"
        )
    resized = (max(1, round(height * scale[0])), max(1, round(width * scale[1])))
    scale = (resized[0] / height, resized[1] / width)  # the exact scale, after rounding to whole pixels
    offset = pair(float((r - s) // 2) for r, s in zip(resized, size, strict=True))
    return Geometry((height, width), pair(size), scale, offset)


def fit_image(image: Image.Image, size: tuple[int, int], fit: Fit = "crop") -> tuple[Image.Image, Geometry]:
    """Resize an upright RGB image to the model's input size, with antialiasing.

    Args:
        image: the original, as `load_image` returns it.
        size: (h, w) of the input, in pixels.
        fit: "crop" keeps the aspect ratio and crops to the centre; "pad" keeps the aspect ratio and the whole
            image, with margins; "squash" keeps the whole image, but not the aspect ratio.

    Returns:
        The input image of exactly `size`, and its geometry.

    Raises:
        InputError: if the shorter side would be less than one pixel.
    """
    height, width = image.height, image.width
    geometry = fit_geometry((height, width), size, fit)
    if fit == "crop":  # resize only the kept part, so that a very long image does not become very large
        (top, left), (bottom, right) = geometry.to_original(np.array([(0, 0), size]))
        box = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
        out = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    else:
        out = Image.new("RGB", (size[1], size[0]), PAD_COLOUR)
        resized = (round(width * geometry.scale[1]), round(height * geometry.scale[0]))
        whole = image.resize(resized, Image.Resampling.BILINEAR)
        out.paste(whole, (-int(geometry.offset[1]), -int(geometry.offset[0])))
    return out, geometry


class ModelInput(NamedTuple):
    """What a model takes for an input, and where the cells of its maps look: everything that lays a map over a picture.

    Attributes:
        size: (h, w) in pixels.
        fit: how an image is made that size; see `fit_image`.
        cell_shift: see `Geometry.cell_shift`.
    """

    size: tuple[int, int]
    fit: Fit
    cell_shift: CellShift | Pair = (0.0, 0.0)

    def fit_image(self, image: Image.Image) -> tuple[Image.Image, Geometry]:
        """An upright RGB image as the input image, and its complete geometry; raises as the function `fit_image`."""
        fitted, geometry = fit_image(image, self.size, self.fit)
        return fitted, geometry._replace(cell_shift=self.cell_shift)

    def geometry(self, original: tuple[int, int]) -> Geometry:
        """The complete geometry of an image of `original` (H, W); raises as `fit_geometry`."""
        return fit_geometry(original, self.size, self.fit)._replace(cell_shift=self.cell_shift)

    def identity(self) -> Geometry:
        """The complete geometry of an image that has the input's size already."""
        return Geometry.identity(self.size)._replace(cell_shift=self.cell_shift)
