"""Options for the style and the formats of overlays, shared by several commands."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from visattn.errors import InputError
from visattn.images import Interpolation

if TYPE_CHECKING:
    from visattn.overlay import Paper, Style
    from visattn.overlay.style import Scale

COLOUR_MAP, OPACITY, WORD_SIZE = "inferno", 0.85, 11.0  # as in visattn.overlay.style, which loads matplotlib


def add_picture_options(parser: argparse.ArgumentParser, exports: Sequence[str], scale: str, end: str) -> None:
    """Add the options to a parser.

    Args:
        parser: the command's parser.
        exports: formats that the command can write; the first and the last are the default.
        scale: text that describes the default of `--scale`.
        end: default of `--end`.
    """
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--scale", choices=("shared", "own"), help=f"one colour scale for all maps, or one per map (default: {scale})"
    )
    group.add_argument(
        "--end",
        choices=("max", "robust"),
        default=end,
        help="end of a colour scale: the largest weight, or, robust, a value below a few outlying cells, which are "
        f"then framed (default: {end})",
    )
    group.add_argument("--colour-map", default=COLOUR_MAP, help=f"matplotlib colour map (default: {COLOUR_MAP})")
    group.add_argument(
        "--opacity", type=float, default=OPACITY, help=f"opacity at the largest weight, 0 to 1 (default: {OPACITY})"
    )
    group.add_argument(
        "--interpolation",
        choices=get_args(Interpolation),
        default="bilinear",
        help="interpolate between cell centres, or show cells as blocks (default: bilinear, smooth)",
    )
    group.add_argument(
        "--contour",
        default="",
        metavar="SHARES",
        help="draw a line around the smallest area that holds each of these shares of a map's weight, e.g. 0.5,0.9",
    )
    usual = f"{exports[0]},{exports[-1]}"
    group.add_argument(
        "--export",
        default=usual,
        metavar="LIST",
        help=f"formats to write: {', '.join(exports)} (default: {usual})",
    )
    group.add_argument("--width", help="width of sheets, such as 8.5cm or 3.3in (default: fits the panels)")
    group.add_argument("--points", type=float, default=WORD_SIZE, help=f"font size of sheets (default: {WORD_SIZE:g})")
    group.add_argument("--columns", type=int, help="panels per row of a sheet (default: automatic)")
    parser.set_defaults(exports=tuple(exports))


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add `--workers` to a parser; None is automatic."""
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that draw while the model runs; 0 draws in the main process (default: one per core, up to "
        "eight, and none for fewer than 24 images)",
    )


def style_of(options: argparse.Namespace, scale: "Scale") -> "Style":
    """How maps are drawn.

    Args:
        options: the parsed options.
        scale: colour scale if `--scale` is not given.
    """
    from visattn.overlay import Style

    contour = _shares(options.contour)
    return Style(
        options.scale or scale, options.colour_map, options.opacity, options.interpolation, contour, options.end
    )


def paper_of(options: argparse.Namespace) -> "Paper":
    """Size of the sheets."""
    from visattn.overlay import Paper

    return Paper(centimetres(options.width) if options.width else None, options.points, options.columns)


def exports_of(options: argparse.Namespace) -> list[Any]:
    """The formats to write, each one of `options.exports`.

    Raises:
        InputError: if `--export` is empty or has an unknown format.
    """
    names = _listed(options.export)
    for name in names or [options.export]:
        if name not in options.exports:
            raise InputError(f"--export has '{name}'; give a comma-separated list of {', '.join(options.exports)}")
    return names


def centimetres(text: str) -> float:
    """Parse a length such as 8.5cm, 85mm or 3.3in.

    Raises:
        InputError: if the text is not a length.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(cm|mm|in)\s*", text)
    if found is None:
        raise InputError(f"--width is '{text}'; it must be a length such as 8.5cm, 85mm or 3.3in")
    return float(found[1]) * {"cm": 1.0, "mm": 0.1, "in": 2.54}[found[2]]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in _listed(text)]
    except ValueError as error:
        raise InputError(f"--contour is '{text}'; it must be comma-separated shares such as 0.5,0.9") from error
