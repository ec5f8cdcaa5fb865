"""Heat maps of attention weights over the original image."""

import io
import math
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from PIL import Image

from visattn.errors import InputError, require_number
from visattn.images import Geometry, Interpolation
from visattn.overlay.style import COLOUR_MAP, OPACITY

FAR = 4.0
"""A cell is far above all others that has more than so many times the weight at which `robust_limits` end."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_SATURATION, _LIGHT = 0.50, 0.86  # of the image, reduced so that the map stands out
_LEVELS = 4096  # of the colour scale: with 256 the first one ends in a contour, since opacity rises steeply from 0
_START, _ALPHA_POWER = 0.18, 0.6  # skips the dark end of the colour map, so that small weights show on dark images
_HATCH_GREY, _HATCH_LINE = 214.0, 140.0  # parts not seen by the model: a pale image with darker lines
_LONGEST = 700  # longest side in pixels of an image as shown, for panoramas
_BAND = 256  # rows blended at a time, to limit the memory for float copies of large images


def shared_limits(maps: Iterable[np.ndarray]) -> tuple[float, float]:
    """(0, largest weight in all of `maps`): colour limits that make the panels comparable."""
    return 0.0, max((float(np.max(weights)) for weights in maps), default=0.0)


def robust_limits(maps: Iterable[np.ndarray]) -> tuple[float, float]:
    """As `shared_limits`, but for a few cells far above all others, such as a Vision Transformer's sink patches.

    Where the largest weight is more than `FAR` times what remains without half a percent of the cells (at least one),
    the scale ends at that; else one patch of a thousand would leave the others without colour.
    """
    weights = np.sort(np.concatenate([np.zeros(1), *(np.ravel(m) for m in maps)]))
    rest = float(weights[-1 - max(1, round(0.005 * len(weights)))]) if len(weights) > 2 else 0.0
    largest = float(weights[-1])
    return 0.0, rest if 0 < FAR * rest < largest else largest


def heatmap(
    image: np.ndarray,
    weights: np.ndarray,
    geometry: Geometry,
    *,
    limits: tuple[float, float] | None = None,
    colour_map: str = COLOUR_MAP,
    opacity: float = OPACITY,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Draw a map over the original image.

    The image is dimmed and partly desaturated, and covered by the map's colour, more so for larger weights. Parts that
    the model did not see are grey and hatched, not coloured as a weight of 0.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        weights: (h, w) finite values, one for each cell of a regular grid over the model's input.
        geometry: from the original to the input.
        limits: (low, high) weights at the two ends of the colour scale; weights beyond them are clipped. If both are
            equal, everything has the colour of the low end. None is the map's `robust_limits`.
        colour_map: name of a matplotlib colour map.
        opacity: of the colour at the high end, from 0 to 1.
        interpolation: between cells; see `Geometry.to_original_map`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: for an unknown matplotlib colour map, or an opacity outside 0 to 1.
        ValueError: if the arrays do not fit the geometry, a weight is not finite, or limits are not in order.
    """
    check_picture(image, geometry)
    check_map(weights)
    limits = robust_limits([weights]) if limits is None else limits
    table = _colours(colour_map, opacity)
    spread = geometry.to_original_map(weights, interpolation)
    out = np.empty_like(image)
    for top in range(0, image.shape[0], _BAND):
        rows = slice(top, top + _BAND)
        picture = image[rows].astype(np.float32)
        seen = ~np.isnan(spread[rows])
        out[rows] = _blend(picture, np.where(seen, spread[rows], limits[0]), limits, table)
        if not seen.all():
            out[rows] = np.where(seen[..., None], out[rows], hatched(picture, top, image.shape[:2]))
    return out


def colour_strip(steps: int, colour_map: str = COLOUR_MAP, opacity: float = OPACITY) -> np.ndarray:
    """(1, steps, 3) uint8: the colour scale from low to high, as `heatmap` draws it over medium grey."""
    grey = np.full((1, steps, 3), 150.0, dtype=np.float32)
    return _blend(grey, np.linspace(0, 1, steps, dtype=np.float32)[None], (0.0, 1.0), _colours(colour_map, opacity))


def palette() -> dict[str, Any]:
    """The constants of `heatmap`, from which a page's script draws the same colours.

    Returns:
        JSON values: `table` (256, 4), the colours at full opacity (red, green and blue from 0 to 255, premultiplied by
        the fourth column, alpha), between which pages interpolate; `luma`, `saturation` and `light` of the image;
        `hatch`, the greys of background and lines where the model did not see the image; `opacity`, the default.
    """
    return {
        "table": np.round(_colours(COLOUR_MAP, 1.0, 256).astype(float), 4).tolist(),
        "luma": np.round(_LUMA.astype(float), 4).tolist(),
        "saturation": _SATURATION,
        "light": _LIGHT,
        "hatch": [_HATCH_GREY, _HATCH_LINE],
        "opacity": OPACITY,
    }


def hatched(picture: np.ndarray, top: int, size: tuple[int, int]) -> np.ndarray:
    """Rows (h, w, 3) of an image of `size`, from row `top` on, greyed and hatched."""
    spacing = max(4, round(min(max(size), 3 * min(size)) / 32))  # of the lines, relative to the size
    thickness = spacing / 9
    y, x = np.ogrid[top : top + picture.shape[0], : picture.shape[1]]
    distance = np.abs((y + x) % spacing - spacing / 2) / np.sqrt(2)  # from the middle of the nearest diagonal
    line = np.clip(thickness / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    grey = 0.3 * (picture @ _LUMA) + 0.7 * _HATCH_GREY
    grey = grey * (1 - line) + _HATCH_LINE * line
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)


def encode_png(picture: np.ndarray) -> bytes:
    """Encode an image (H, W, 3) uint8 as PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="png")
    return stream.getvalue()


def check_picture(image: np.ndarray, geometry: Geometry) -> None:
    """Raise a ValueError unless `image` is the (H, W, 3) uint8 original of `geometry`."""
    if image.dtype != np.uint8 or image.shape != (*geometry.original, 3):
        height, width = geometry.original
        raise ValueError(f"the image must be ({height}, {width}, 3) uint8, not {image.shape} {image.dtype}")


def check_map(weights: np.ndarray) -> None:
    """Raise a ValueError unless `weights` is (h, w) and finite."""
    if np.ndim(weights) != 2 or not np.size(weights):
        raise ValueError(f"a map must be (h, w), not {np.shape(weights)}")
    if not np.isfinite(weights).all():
        raise ValueError("a map must be finite, but this one contains NaN or infinity")


def _colours(colour_map: str, opacity: float, levels: int = _LEVELS) -> np.ndarray:
    """(levels, 4) float32: red, green and blue from 0 to 255, premultiplied by the fourth column, alpha."""
    require_number("opacity", opacity, least=0, most=1)
    try:
        found: Colormap = matplotlib.colormaps[colour_map]
    except KeyError as error:
        raise InputError(f"matplotlib has no colour map '{colour_map}'; try inferno, magma or viridis") from error
    position = np.linspace(0, 1, levels)
    alpha = opacity * position**_ALPHA_POWER
    colours = found(_START + (1 - _START) * position)[:, :3] * 255
    return np.column_stack([colours * alpha[:, None], alpha]).astype(np.float32)


def _blend(picture: np.ndarray, weights: np.ndarray, limits: tuple[float, float], table: np.ndarray) -> np.ndarray:
    """Blend an image (h, w, 3) float32 with the colours of `weights` (h, w); returns (h, w, 3) uint8."""
    low, high = limits
    if not low <= high:
        raise ValueError(f"limits must be (low, high) with low ≤ high, not {limits}")
    position = (weights - low) / (high - low) if high > low else np.zeros_like(weights)
    colour = table[np.round(np.clip(position, 0, 1) * (len(table) - 1)).astype(np.uint16)]
    base = _LIGHT * (_SATURATION * picture + (1 - _SATURATION) * (picture @ _LUMA)[..., None])
    return np.round(base * (1 - colour[..., 3:]) + colour[..., :3]).astype(np.uint8)


def as_shown(
    image: np.ndarray, geometry: Geometry, side: float, width: float = math.inf
) -> tuple[np.ndarray, Geometry]:
    """The image resized for a panel, and the geometry from there to the model's input.

    Args:
        image: (H, W, 3) uint8.
        geometry: of the original.
        side: the panel has about side² pixels, fewer for a panorama; infinity for no limit.
        width: maximum width of the panel in pixels; infinity for no limit.
    """
    high, wide = geometry.original
    factor = width / wide
    if side < math.inf:
        factor = min(side / math.sqrt(high * wide), _LONGEST / max(high, wide), factor)
    if factor >= 2:  # enlarge tiny images by an integer factor, with sharp pixels
        factor = round(factor) if round(factor) * wide <= width else math.floor(factor)
        method = Image.Resampling.NEAREST
    else:
        method = Image.Resampling.LANCZOS
    size = max(1, round(high * factor)), max(1, round(wide * factor))
    picture = Image.fromarray(image).resize((size[1], size[0]), method, reducing_gap=2.0)
    return np.asarray(picture), geometry.resized(size)


def cell_box(geometry: Geometry, grid: tuple[int, int], index: int) -> tuple[float, float, float, float] | None:
    """(top, left, bottom, right) of a cell, clipped to the original; None if it is entirely in the padding."""
    if not 0 <= index < grid[0] * grid[1]:
        raise ValueError(f"cell {index} was drawn from a grid of {grid[0]}×{grid[1]}")
    corner, cells = np.array(divmod(index, grid[1])), geometry.cells(grid)
    box = np.stack([corner, corner + 1]) * cells.stride + tuple(cells)
    (top, left), (bottom, right) = np.clip(geometry.to_original(box), 0, geometry.original)
    return (top, left, bottom, right) if top < bottom and left < right else None
