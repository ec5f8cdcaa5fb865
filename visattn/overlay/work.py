"""Accuracy against work: a line for each model, a point for each glimpse."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, wrap

_COLOURS = ("#2a5a8c", "#d2600a", "#3c8d5a", "#8a4f9e", "#b03a48")
_GRID, _BASE = "#dde1e5", "#9aa3ab"
_WIDTH, _HEIGHT = 1500, 620  # of the sheet, of the panel, in pixels at DPI
_LEFT, _RIGHT, _FOOT = 100, 430, 84


class Line(NamedTuple):
    """What a model reaches, glimpse by glimpse.

    Attributes:
        name: of the model.
        work: (T,) multiply-adds, rising, more than 0.
        accuracy: (T,) mean over runs, from 0 to 1.
        low: (T,) of the worst run.
        high: (T,) of the best run.
        read: numbers read in the end, as a share of the picture's pixels.
    """

    name: str
    work: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    read: float


def work_sheet(lines: Sequence[Line], *, title: str = "", note: str = "") -> Figure:
    """Draw accuracy over the multiply-adds of one picture, on a logarithmic axis; bars span the runs.

    Args:
        lines: at least one.
        title: a line above all.
        note: under the title, small.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        ValueError: if there is no line, or a line's numbers are not alike many and finite, its work more than 0.
    """
    for line in lines:
        parts = np.stack(np.broadcast_arrays(*map(np.asarray, line[1:5])))
        if not np.isfinite(parts).all() or (parts[0] <= 0).any() or not len(line.work):
            raise ValueError(f"the line of '{line.name}' must have finite accuracies and work above 0")
    if not lines:
        raise ValueError("there is nothing to draw")
    inner = _WIDTH - 2 * MARGIN
    header = [(text, TITLE_SIZE, INK) for text in (wrap(title, inner, TITLE_SIZE, lines=2) if title else [])]
    header += [(text, SMALL, MUTED) for text in (wrap(note, inner, SMALL, lines=3) if note else [])]
    above = sum(line_height(size) for _, size, _ in header) + 44
    sheet = Sheet(_WIDTH, 2 * MARGIN + above + _HEIGHT + _FOOT)
    y = MARGIN
    for text, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) / 2, text, size, colour)
        y += line_height(size)
    _panel(sheet, lines, MARGIN + _LEFT, MARGIN + above)
    return sheet.figure


def _panel(sheet: Sheet, lines: Sequence[Line], x: int, y: int) -> None:
    width = sheet.width - 2 * MARGIN - _LEFT - _RIGHT
    least, most = (f(f(line.work) for line in lines) for f in (min, max))
    low, high = np.log10(least) - 0.15, np.log10(most) + 0.15
    floor = np.floor(10 * min(min(line.low) for line in lines)) / 10
    box = x / sheet.width, 1 - (y + _HEIGHT) / sheet.height, width / sheet.width, _HEIGHT / sheet.height
    axes = sheet.figure.add_axes(box, xlim=(low, high), ylim=(floor, 1.0))
    axes.set_axis_off()
    for tick in np.arange(round(10 * floor), 11) / 10:
        height = y + _HEIGHT * (1 - tick) / (1 - floor)
        axes.axhline(tick, color=_BASE if tick == floor else _GRID, linewidth=0.8, clip_on=False, zorder=1)
        sheet.text(x - 14, height, f"{100 * tick:.0f} %", SMALL, MUTED, align="right")
    for exponent in range(int(low), int(high) + 1):
        for step in (1, 2, 5):
            place = exponent + np.log10(step)
            if low < place < high:
                middle = x + width * (place - low) / (high - low)
                sheet.text(middle, y + _HEIGHT + 20, _number(step * 10.0**exponent), SMALL, MUTED, align="center")
    sheet.text(x + width / 2, y + _HEIGHT + 56, "multiply-adds for one picture", SMALL, MUTED, align="center")
    heights = _apart([y + _HEIGHT * (1 - line.accuracy[-1]) / (1 - floor) for line in lines], 62)
    for number, (line, height) in enumerate(zip(lines, heights, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        across = np.log10(line.work)
        axes.plot(across, line.accuracy, color=colour, linewidth=2.0, marker="o", markersize=5, clip_on=False, zorder=3)
        axes.vlines(across, line.low, line.high, color=colour, linewidth=1.0, zorder=2)
        label = f"{line.name}, {100 * line.accuracy[-1]:.1f} %"
        sheet.text(x + width + 24, height - 13, label, WORD_SIZE, colour)
        sheet.text(x + width + 24, height + 15, f"reads {_percent(line.read)} of the pixels", SMALL, MUTED)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` from each other, in the same order, each moved down as little as that needs."""
    placed = dict[int, float]()
    last = -np.inf
    for number in sorted(range(len(heights)), key=lambda n: heights[n]):
        placed[number] = last = max(heights[number], last + gap)
    return [placed[number] for number in range(len(heights))]


def _number(value: float) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"
