"""How pictures look and what is written of them, as options of a command line; the same in every program."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from visattn.errors import InputError
from visattn.images import Interpolation

if TYPE_CHECKING:
    from visattn.overlay import Paper, Style
    from visattn.overlay.style import Scale

COLOUR_MAP, OPACITY, WORD_SIZE = "inferno", 0.85, 11.0  # of visattn.overlay.style, which loads matplotlib


def add_picture_options(parser: argparse.ArgumentParser, exports: Sequence[str], scale: str, end: str) -> None:
    """Add them to a parser.

    Args:
        parser: of the program.
        exports: what the program can write; the first and the last are what it does by default.
        scale: when maps share a scale by default, in words.
        end: where scales end by default.
    """
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--scale", choices=("shared", "own"), help=f"one colour scale for all maps, or one for each (default: {scale})"
    )
    group.add_argument(
        "--end",
        choices=("max", "robust"),
        default=end,
        help="where a colour scale ends: at the largest weight, or below a few cells far above all others, which are "
        f"then framed (default: {end})",
    )
    group.add_argument("--colour-map", default=COLOUR_MAP, help=f"a name that matplotlib knows (default: {COLOUR_MAP})")
    group.add_argument(
        "--opacity", type=float, default=OPACITY, help=f"of the largest weight's colour, 0 to 1 (default: {OPACITY})"
    )
    group.add_argument(
        "--interpolation",
        choices=get_args(Interpolation),
        default="bilinear",
        help="smooth between the middles of a map's cells, or the cells as they are (default: bilinear, smooth)",
    )
    group.add_argument(
        "--contour",
        default="",
        metavar="SHARES",
        help="lines around the smallest area that holds each of these shares of a map's weight, such as 0.5,0.9",
    )
    usual = f"{exports[0]},{exports[-1]}"
    group.add_argument(
        "--export", default=usual, metavar="LIST", help=f"what to write, of {', '.join(exports)} (default: {usual})"
    )
    group.add_argument("--width", help="of the sheets, such as 8.5cm or 3.3in (default: as large as they come)")
    group.add_argument(
        "--points", type=float, default=WORD_SIZE, help=f"size of a sheet's words (default: {WORD_SIZE:g})"
    )
    group.add_argument("--columns", type=int, help="panels of a sheet side by side (default: a pleasant number)")
    parser.set_defaults(exports=tuple(exports))


def style_of(options: argparse.Namespace, scale: "Scale") -> "Style":
    """How maps are drawn, on this scale where none was asked for."""
    from visattn.overlay import Style

    contour = _shares(options.contour)
    return Style(
        options.scale or scale, options.colour_map, options.opacity, options.interpolation, contour, options.end
    )


def paper_of(options: argparse.Namespace) -> "Paper":
    """How large a sheet is."""
    from visattn.overlay import Paper

    return Paper(centimetres(options.width) if options.width else None, options.points, options.columns)


def exports_of(options: argparse.Namespace) -> list[Any]:
    """What is to be written, each one of `options.exports`.

    Raises:
        InputError: where nothing is, or something that is not known.
    """
    names = _listed(options.export)
    for name in names or [options.export]:
        if name not in options.exports:
            raise InputError(f"--export has '{name}'; it is a list of {', '.join(options.exports)}, with commas")
    return names


def centimetres(text: str) -> float:
    """A length such as 8.5cm, 85mm or 3.3in.

    Raises:
        InputError: where it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(cm|mm|in)\s*", text)
    if found is None:
        raise InputError(f"--width is a length such as 8.5cm, 85mm or 3.3in, not '{text}'")
    return float(found[1]) * {"cm": 1.0, "mm": 0.1, "in": 2.54}[found[2]]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in _listed(text)]
    except ValueError as error:
        raise InputError(f"--contour is a list of shares with commas, such as 0.5,0.9, not '{text}'") from error
