"""A heat map on an image with its lines (contours, frames, hatching); one image per word."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from visattn.images import Geometry
from visattn.overlay.canvas import Sheet
from visattn.overlay.contour import mass_contours
from visattn.overlay.heatmap import FAR, cell_box, check_map, check_picture, heatmap, robust_limits, shared_limits
from visattn.overlay.style import Style

ABOVE = "#4dd2ff"  # frames of cells far above the end of a colour scale; not a colour of inferno
_CONTOURS = (1.0, 0.6)  # line widths in points of the first contour and the others


def draw_map(
    style: Style, picture: np.ndarray, shown: Geometry, weights: np.ndarray, limits: tuple[float, float]
) -> "Drawn":
    """Draw a map over an image, at the resolution shown."""
    pixels = heatmap(
        *(picture, weights, shown),
        limits=limits,
        colour_map=style.colour_map,
        opacity=style.opacity,
        interpolation=style.interpolation,
    )
    contours = [mass_contours(weights, shown, share, style.interpolation) for share in style.contour]
    above = [cell_box(shown, weights.shape, int(cell)) for cell in np.flatnonzero(weights > FAR * limits[1])]
    return Drawn(pixels, contours, above=[box for box in above if box is not None])


def limits_of(style: Style, maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """Both ends of the colour scale of these maps."""
    return (robust_limits if style.end == "robust" else shared_limits)(maps)


class Drawn(NamedTuple):
    """A map over an image, and lines to draw on top; all at the resolution shown.

    Attributes:
        pixels: (h, w, 3) uint8.
        contours: for each share of the mass, its lines, (n, 2) of (y, x).
        box: (top, left, bottom, right) of the cell sampled by hard attention.
        above: the same for cells with weights far above the end of the colour scale.
    """

    pixels: np.ndarray
    contours: Sequence[list[np.ndarray]] = ()
    box: tuple[float, float, float, float] | None = None
    above: Sequence[tuple[float, float, float, float]] = ()

    def put(self, sheet: Sheet, x: int, y: int, points: float = 1.0) -> tuple[float, float]:
        """Draw it on a sheet; returns (height, width) in sheet pixels."""
        height, width = (side / sheet.detail for side in self.pixels.shape[:2])
        sheet.picture(x, y, self.pixels, sheet.detail)
        for n, lines in enumerate(self.contours):
            thickness = _CONTOURS[min(n, 1)] * points
            sheet.lines(x, y, (height, width), [line / sheet.detail for line in lines], thickness)
        for box, thickness, colour in [*((box, 0.8, ABOVE) for box in self.above), (self.box, 1.3, "white")]:
            if box is not None:
                sheet.frame(x, y, tuple(side / sheet.detail for side in box), thickness * points, colour)
        return height, width


def check_words(
    image: np.ndarray, words: Sequence[str], maps: np.ndarray, geometry: Geometry, **others: Sequence | None
) -> None:
    """Raise a ValueError unless the image matches the geometry, and all sequences have one item per word."""
    check_picture(image, geometry)
    for name, given in {"maps": maps, **others}.items():
        if given is not None and len(given) != len(words):
            raise ValueError(f"there are {len(words)} words, but {len(given)} {name}")
    for weights in maps:
        check_map(weights)


def draw_words(
    picture: np.ndarray, maps: np.ndarray, shown: Geometry, style: Style, drawn: Sequence[int | None] | None
) -> Iterator[Drawn]:
    """Draw the map of each word, lazily."""
    shared = limits_of(style, maps)
    for t, weights in enumerate(maps):
        limits = shared if style.scale == "shared" else limits_of(style, [weights])
        box = cell_box(shown, weights.shape, drawn[t]) if drawn is not None and drawn[t] is not None else None
        yield draw_map(style, picture, shown, weights, limits)._replace(box=box)
