"""Drawing options shared by all kinds of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from visattn.errors import InputError
from visattn.images import Interpolation

Scale = Literal["shared", "own"]
End = Literal["max", "robust"]

COLOUR_MAP = "inferno"
"""Perceptually uniform, and readable in greyscale and with colour blindness."""
OPACITY = 0.85
"""Of the colour of the largest weight."""
WORD_SIZE = 11.0
"""Font size of a sheet's words, in points."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn.

    Attributes:
        scale: "shared" gives all maps one colour scale, from 0 to the largest weight of all, so that colours are
            comparable; "own" gives each its own, and prints its maximum.
        colour_map: name of a matplotlib colour map.
        opacity: of the largest weight's colour, from 0 to 1; smaller weights are more transparent.
        interpolation: "bilinear" is smooth, "nearest" shows the cells.
        contour: shares between 0 and 1, such as (0.5,): outlines the smallest area that contains each share of the
            map's mass; see `visattn.overlay.contour`.
        end: where a colour scale ends: at the largest weight, or "robust", below the few cells that are far above all
            others (`visattn.overlay.heatmap.robust_limits`), which are framed.

    Raises:
        InputError: for an invalid share; the drawing functions raise it for an unknown colour map.
    """

    scale: Scale = "shared"
    colour_map: str = COLOUR_MAP
    opacity: float = OPACITY
    interpolation: Interpolation = "bilinear"
    contour: Sequence[float] = ()
    end: End = "max"

    def __post_init__(self) -> None:
        check_shares(self.contour)


@dataclass(frozen=True)
class Paper:
    """The size of a sheet.

    Attributes:
        width: of the whole sheet in centimetres, such as that of a paper's column; None is as needed.
        points: font size of the words; other text is scaled with it.
        columns: number of columns, including the original; None chooses a good aspect ratio.
    """

    width: float | None = None
    points: float = WORD_SIZE
    columns: int | None = None


def check_shares(shares: Sequence[float]) -> None:
    """Raise InputError unless every share is between 0 and 1."""
    for share in shares:
        if not 0 < share < 1:
            raise InputError(f"the contour level is {share}; it must be a share of the mass between 0 and 1")
