"""The scan path of a glimpse model over the original pixels, and what the model saw at each fixation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visattn.images import Geometry
from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE, Sheet, rasterise
from visattn.overlay.heatmap import as_shown, check_picture
from visattn.overlay.layout import Measures, Panel, draw, percent
from visattn.overlay.maps import Drawn
from visattn.overlay.style import WORD_SIZE, Paper
from visattn.overlay.text import DPI, line_height, shorten, text_width
from visattn.overlay.words import animation

_UNSEEN = (233, 235, 237)
_BADGE, _NUMBER = 0.058, 0.62  # diameter of a badge as a share of the picture's side; height of its number in it
_SIDE, _BORDER, _BETWEEN = 400, 28, 24  # of the moving picture, in pixels at DPI
_OPENING, _FIXATION, _CLOSING = 900, 1100, 2200  # milliseconds


class ScanPath(NamedTuple):
    """What a model saw of one picture and said, T glimpses of K squares.

    Attributes:
        centres: (T, 2) of the fixations, (y, x) in pixels of the model's input.
        squares: (K,) sides of the squares, in pixels of the model's input, smallest first.
        glimpses: (T, K, size, size, 3) uint8, what each square looked like.
        classes: T names of the likeliest class after each glimpse.
        probabilities: (T,) its probability.
        overview: (h, w, 3) uint8 the whole input at low resolution, if the first location was chosen from it.
    """

    centres: np.ndarray
    squares: Sequence[int]
    glimpses: np.ndarray
    classes: Sequence[str]
    probabilities: Sequence[float]
    overview: np.ndarray | None = None


def scan_sheet(
    image: np.ndarray,
    path: ScanPath,
    geometry: Geometry,
    *,
    title: str = "",
    paper: Paper = Paper(),
) -> Figure:
    """Draw the path over the original, and a panel for each glimpse with what was seen and said.

    Args:
        image: (H, W, 3) uint8, the original.
        path: see `ScanPath`.
        geometry: from the original to the model's input.
        title: a small line above all.
        paper: size of the sheet.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: if the sheet has no room for its panels.
        ValueError: if the parts do not belong together.
    """
    _check(image, path, geometry)
    measures = Measures.of(paper)
    count = len(path.centres)
    places = 1 + count + (path.overview is not None)
    picture, shown, columns = measures.fit(image, geometry, places, paper.columns)
    panels = [Panel(Drawn(_with_path(picture, path, shown, count)), "scan path", colour=MUTED)]
    if path.overview is not None:
        panels.append(Panel(Drawn(_overview(path.overview, shown)), "overview", "chooses where", colour=MUTED))
    for t, (name, probability) in enumerate(zip(path.classes, path.probabilities, strict=True)):
        panels.append(Panel(Drawn(_seen(path, shown, t)), f"{t + 1}  {name}", percent(probability)))
    header = [(title, SMALL + 1, MUTED)] if title else []
    header.append((f"predicted: {path.classes[-1]}, {percent(path.probabilities[-1])}", TITLE_SIZE, INK))
    kinds = "sharp and coarse square" if len(path.squares) > 1 else "square"
    legend: list[list[str | np.ndarray]] = [[f"numbers: order of the fixations · frames: {kinds} of a glimpse"]]
    return draw(measures, header, panels, legend, columns)


def scan_gif(image: np.ndarray, path: ScanPath, geometry: Geometry) -> bytes:
    """A GIF that follows the fixations: the path so far over the original, and beside it what the model sees.

    The arguments are those of `scan_sheet`, and so is the ValueError.

    Returns:
        The file's bytes: 1 + T frames, the first without a fixation.
    """
    _check(image, path, geometry)
    picture, shown = as_shown(image, geometry, _SIDE)
    high, wide = picture.shape[:2]
    line = line_height(WORD_SIZE)
    left, right, below = _BORDER, _BORDER + wide + _BETWEEN, _BORDER + high + 12
    size = right + wide + _BORDER, below + 2 * line + _BORDER - 8
    first = np.full_like(picture, _UNSEEN) if path.overview is None else _overview(path.overview, shown)
    frames = []
    for t in range(-1, len(path.centres)):
        sheet = Sheet(*size)
        sheet.picture(left, _BORDER, _with_path(picture, path, shown, t + 1))
        sheet.picture(right, _BORDER, first if t < 0 else _seen(path, shown, t))
        place = "before the first glimpse" if t < 0 else f"glimpse {t + 1} of {len(path.centres)}"
        sheet.text(left, below + line // 2, shorten(place, wide, WORD_SIZE), WORD_SIZE, MUTED)
        if t < 0:
            said = "" if path.overview is None else "the whole picture at low resolution"
            sheet.text(right, below + line // 2, shorten(said, wide, SMALL), SMALL, MUTED)
        else:
            number = percent(path.probabilities[t])
            name = shorten(path.classes[t], wide - text_width(number, WORD_SIZE) - 16, WORD_SIZE)
            sheet.text(right, below + line // 2, name, WORD_SIZE, INK)
            sheet.text(right + wide, below + line // 2, number, WORD_SIZE, MUTED, align="right")
            sheet.rectangle(right, below + line + 6, wide, 7, "#e9ecef")
            sheet.rectangle(right, below + line + 6, round(wide * path.probabilities[t]), 7, "#5a6b8c")
        frames.append(rasterise(sheet.figure))
    durations = [_OPENING, *[_FIXATION] * len(path.centres)]
    durations[-1] += _CLOSING
    boxes = [(x, _BORDER, x + wide, _BORDER + high) for x in (left, right)]
    return animation(frames, durations, boxes)


def _check(image: np.ndarray, path: ScanPath, geometry: Geometry) -> None:
    check_picture(image, geometry)
    count = len(path.centres)
    if not count or {len(path.glimpses), len(path.classes), len(path.probabilities)} != {count}:
        raise ValueError("a scan path needs as many glimpses, classes and probabilities as fixations, at least one")
    if path.glimpses.shape[1] != len(path.squares):
        raise ValueError(f"glimpses have {path.glimpses.shape[1]} squares, but {len(path.squares)} sides are given")


def _with_path(picture: np.ndarray, path: ScanPath, shown: Geometry, count: int) -> np.ndarray:
    """The picture under its first `count` fixations: frames, the way between them, and numbers."""
    height, width = picture.shape[:2]
    unit = min(height, width)
    sheet = Sheet(width, height)
    sheet.picture(0, 0, picture)
    points = max(0.5, unit / 400)
    middles = shown.to_original(path.centres[:count])
    for centre in path.centres[:count]:
        for k, side in reversed(list(enumerate(path.squares))):
            corners = shown.to_original(np.array([centre - side / 2, centre + side / 2]))
            (top, left), (bottom, right) = corners
            sheet.frame(0, 0, (top, left, bottom, right), points * (1.0 if k == 0 else 0.5))
    if count > 1:
        sheet.lines(0, 0, (height, width), [middles], points)
    diameter = _BADGE * unit
    corner = (shown.to_original(np.full(2, path.squares[0] / 2)) - shown.to_original(np.zeros(2))) + diameter / 3
    for middle, label in _badges(middles, 1.1 * diameter):
        _badge(sheet, middle - corner, label, diameter)  # beside what was seen, not on it
    return rasterise(sheet.figure)


def _badges(middles: np.ndarray, near: float) -> list[tuple[np.ndarray, str]]:
    """Numbers of fixations at their places; those that would cover each other share one, such as "2–4"."""
    groups: list[list[int]] = []
    for number, middle in enumerate(middles):
        for group in groups:
            if np.hypot(*(middle - middles[group[0]])) < near:
                group.append(number)
                break
        else:
            groups.append([number])
    return [(middles[group].mean(axis=0), _ranges(group)) for group in groups]


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers from 0 as counted from 1: "1", "1–3", "1, 3"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0] + 1) if len(run) == 1 else f"{run[0] + 1}–{run[-1] + 1}" for run in runs)


def _badge(sheet: Sheet, middle: np.ndarray, label: str, diameter: float) -> None:
    """A dark disc with a number, as a line so short that its round ends meet, or longer for a longer label."""
    points = diameter * 72 / DPI
    size = points * _NUMBER
    stretch = max(0.5, (text_width(label, size) - 0.55 * diameter) / 2)  # of length 0 it would not be drawn
    y, x = np.clip(middle, diameter / 2, np.array([sheet.height, sheet.width]) - diameter / 2)
    across, down = [(x - stretch) / sheet.width, (x + stretch) / sheet.width], [1 - y / sheet.height] * 2
    for thickness, colour in ((points * 1.14, "white"), (points, INK)):
        sheet.figure.add_artist(Line2D(across, down, linewidth=thickness, color=colour, solid_capstyle="round"))
    sheet.text(x, y, label, size, "white", align="center")


def _seen(path: ScanPath, shown: Geometry, t: int) -> np.ndarray:
    """What glimpse `t` saw, each square in its place, at the pixels shown; all else is grey."""
    y, x = _input_places(shown)
    pixels = np.full((*shown.original, 3), _UNSEEN, dtype=np.uint8)
    for side, square in reversed(list(zip(path.squares, path.glimpses[t], strict=True))):
        size = len(square)
        rows, columns = (
            np.floor((at - centre + side / 2) * size / side).astype(int)
            for at, centre in zip((y, x), path.centres[t], strict=True)
        )
        down, across = (np.flatnonzero((index >= 0) & (index < size)) for index in (rows, columns))
        pixels[np.ix_(down, across)] = square[np.ix_(rows[down], columns[across])]
    return pixels


def _overview(overview: np.ndarray, shown: Geometry) -> np.ndarray:
    """The input at low resolution, at the pixels shown."""
    indices = [
        np.clip(np.floor(at * cells / n).astype(int), 0, cells - 1)
        for at, cells, n in zip(_input_places(shown), overview.shape[:2], shown.input, strict=True)
    ]
    return overview[np.ix_(*indices)]


def _input_places(shown: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of the rows and of the columns of the pixels shown lie in the input, in its pixels."""
    height, width = shown.original
    rows = shown.to_input(np.stack([np.arange(height) + 0.5, np.zeros(height)], axis=1))[:, 0]
    columns = shown.to_input(np.stack([np.zeros(width), np.arange(width) + 0.5], axis=1))[:, 1]
    return rows, columns
