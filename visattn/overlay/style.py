"""How pictures look: arguments that every kind of picture takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from visattn.errors import InputError
from visattn.images import Interpolation

Scale = Literal["shared", "own"]
End = Literal["max", "robust"]

COLOUR_MAP = "inferno"
"""Its lightness rises evenly: no false edges, and it survives a grey printer and colour blindness."""
OPACITY = 0.85
"""Of the largest weight's colour."""
WORD_SIZE = 11.0
"""Of a sheet's words, in points."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn.

    Attributes:
        scale: "shared" gives all maps one colour scale, from 0 to the largest weight of all, so that colours can be
            compared; "own" gives each its own, and writes down where it ends.
        colour_map: a name that matplotlib knows.
        opacity: of the largest weight's colour, from 0 to 1; smaller weights are more transparent.
        interpolation: "bilinear" is smooth, "nearest" shows the cells.
        contour: shares between 0 and 1, such as (0.5,): a line around the smallest area that holds each share of the
            map's mass; see `visattn.overlay.contour`.
        end: where a colour scale ends: at the largest weight, or "robust", below the few cells that are far above all
            others (`visattn.overlay.heatmap.robust_limits`), which are framed.

    Raises:
        InputError: for a share that is none; the drawing functions raise it for what matplotlib does not know.
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
    """How large a sheet is.

    Attributes:
        width: of the whole sheet in centimetres, as a paper's column asks; None lets it grow as needed.
        points: size of the words; all other text keeps its proportion to them.
        columns: panels side by side, the original among them; None chooses a pleasant shape.
    """

    width: float | None = None
    points: float = WORD_SIZE
    columns: int | None = None


def check_shares(shares: Sequence[float]) -> None:
    """Raise InputError unless every share is between 0 and 1."""
    for share in shares:
        if not 0 < share < 1:
            raise InputError(f"a contour is drawn at a share of the mass between 0 and 1, not at {share}")
