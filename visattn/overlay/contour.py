"""Contours around the smallest area that contains a given share of a map's mass."""

import numpy as np
from contourpy import contour_generator

from visattn.images import Geometry, Interpolation
from visattn.overlay.style import check_shares


def mass_level(spread: np.ndarray, share: float) -> float:
    """The level for which {value ≥ level} is the smallest area that contains a share of the mass.

    This is the highest-density region (Hyndman 1996). Unlike a share of the largest weight, it means the same for
    peaked and for flat maps.

    Args:
        spread: (H, W) non-negative values at the pixels, NaN where there are none.
        share: of the sum, between 0 and 1.
    """
    values = np.sort(spread[~np.isnan(spread)])[::-1].astype(np.float64)
    mass = np.cumsum(values)
    return float(values[np.searchsorted(mass, share * mass[-1])]) if len(values) else 0.0


def mass_contours(
    weights: np.ndarray, geometry: Geometry, share: float, interpolation: Interpolation = "bilinear"
) -> list[np.ndarray]:
    """The outline of the smallest area of the image that contains a share of the map's mass inside the image.

    Args:
        weights: (h, w) finite, one for each cell of a regular grid over the model's input; negative ones count as 0,
            as they are drawn.
        geometry: from the image's pixels to that input.
        share: between 0 and 1, exclusive.
        interpolation: between cells; see `Geometry.to_original_map`.

    Returns:
        Lines (n, 2) of (y, x) in pixels of the image; closed, unless the area reaches the edge of the image or of what
        the model saw. Empty if all values are equal.

    Raises:
        InputError: for a share outside 0 to 1.
    """
    check_shares([share])
    spread = np.maximum(geometry.to_original_map(weights, interpolation), 0)
    level = mass_level(spread, share)
    seen = spread[~np.isnan(spread)]
    if min(spread.shape) < 2 or not seen.size or not seen.min() < level:
        return []
    y, x = (np.arange(n) + 0.5 for n in spread.shape)
    level = np.nextafter(np.float32(level), np.float32(0))  # so that a plateau at the level is inside
    found = contour_generator(x, y, np.ma.masked_invalid(spread)).lines(float(level))
    return [np.asarray(line)[:, ::-1] for line in found]
