"""A heat map on an image with its lines (contours, frames, hatching); one image per word."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from visattn.images import Geometry, Interpolation
from visattn.overlay.canvas import Sheet
from visattn.overlay.contour import check_shares, mass_contours
from visattn.overlay.heatmap import cell_box, check_map, check_picture, heatmap, shared_limits

Scale = Literal["shared", "own"]

_CONTOURS = (1.0, 0.6)  # points of the lines around the first share and the others


class Look(NamedTuple):
    """How maps are drawn; each is an argument of the public functions, which say what it is."""

    scale: Scale
    colour_map: str
    opacity: float
    interpolation: Interpolation
    contour: tuple[float, ...]

    def checked(self) -> "Look":
        """Itself, once its contours are possible; `heatmap` looks at the rest."""
        check_shares(self.contour)
        return self

    def draw(self, picture: np.ndarray, shown: Geometry, weights: np.ndarray, limits: tuple[float, float]) -> "Drawn":
        """A map over a picture, at the pixels shown."""
        pixels = heatmap(
            *(picture, weights, shown),
            limits=limits,
            colour_map=self.colour_map,
            opacity=self.opacity,
            interpolation=self.interpolation,
        )
        return Drawn(pixels, [mass_contours(weights, shown, share, self.interpolation) for share in self.contour])


class Drawn(NamedTuple):
    """A map over a picture, and what lies over it as lines; all at the pixels shown.

    Attributes:
        pixels: (h, w, 3) uint8.
        contours: for each share of the mass, its lines, (n, 2) of (y, x).
        box: (top, left, bottom, right) of the place that was drawn.
    """

    pixels: np.ndarray
    contours: Sequence[list[np.ndarray]] = ()
    box: tuple[float, float, float, float] | None = None

    def put(self, sheet: Sheet, x: int, y: int, points: float = 1.0) -> tuple[float, float]:
        """Put it onto a sheet; (height, width) in the sheet's pixels."""
        height, width = (side / sheet.detail for side in self.pixels.shape[:2])
        sheet.picture(x, y, self.pixels, sheet.detail)
        for n, lines in enumerate(self.contours):
            thickness = _CONTOURS[min(n, 1)] * points
            sheet.lines(x, y, (height, width), [line / sheet.detail for line in lines], thickness)
        if self.box is not None:
            sheet.frame(x, y, tuple(side / sheet.detail for side in self.box), 1.3 * points)
        return height, width


def check_words(
    image: np.ndarray, words: Sequence[str], maps: np.ndarray, geometry: Geometry, **others: Sequence | None
) -> None:
    """Raise ValueError unless the image is that of the geometry, and each word has a map and one of each other."""
    check_picture(image, geometry)
    for name, given in {"maps": maps, **others}.items():
        if given is not None and len(given) != len(words):
            raise ValueError(f"there are {len(words)} words, but {len(given)} {name}")
    for weights in maps:
        check_map(weights)


def draw_words(
    picture: np.ndarray, maps: np.ndarray, shown: Geometry, look: Look, drawn: Sequence[int | None] | None
) -> Iterator[Drawn]:
    """The picture of each word, one at a time."""
    shared = shared_limits(maps)
    for t, weights in enumerate(maps):
        limits = shared if look.scale == "shared" else shared_limits([weights])
        box = cell_box(shown, weights.shape, drawn[t]) if drawn is not None and drawn[t] is not None else None
        yield look.draw(picture, shown, weights, limits)._replace(box=box)
