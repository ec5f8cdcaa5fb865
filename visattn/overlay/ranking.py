"""Plots of maps' scores: a row for each map, a panel for each score."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, text_width, wrap

_MAP, _CONTROL, _GRID, _BASE = "#2a5a8c", "#8b949d", "#dde1e5", "#9aa3ab"

# In pixels at DPI.
_PANEL, _GAP, _ROW, _FOOT, _BEFORE = 250, 44, 44, 40, 26

Interval = tuple[float, float, float]


class Ranked(NamedTuple):
    """A map's scores.

    Attributes:
        name: of the map.
        scores: for each panel mean, low and high; None where it has none.
        control: whether it has not seen the image, and is drawn in grey.
    """

    name: str
    scores: tuple[Interval | None, ...]
    control: bool = False


def ranking_sheet(rows: Sequence[Ranked], scores: Sequence[str], *, title: str | None = None, note: str = "") -> Figure:
    """Draw each map's scores as a point and its interval.

    Args:
        rows: the maps, the first on top.
        scores: names of the panels; each has its own scale.
        title: a line above all.
        note: under the title, small.

    Returns:
        A figure not registered with pyplot.

    Raises:
        ValueError: if there is no map, or a map has not a score or None for each panel.
    """
    if not rows or any(len(row.scores) != len(scores) for row in rows):
        raise ValueError("a ranking needs maps, each with a score or None for every panel")
    names = max(text_width(row.name, WORD_SIZE) for row in rows) + _BEFORE
    width = 2 * MARGIN + names + len(scores) * (_PANEL + _GAP) - _GAP
    header = [(line, TITLE_SIZE, INK) for line in wrap(title or "", width - 2 * MARGIN, TITLE_SIZE, lines=2)]
    header += [(line, SMALL, MUTED) for line in wrap(note, width - 2 * MARGIN, SMALL, lines=2)]
    above = MARGIN + sum(line_height(size) for _, size, _ in header) + _ROW
    sheet = Sheet(width, above + len(rows) * _ROW + _FOOT + MARGIN)
    y = MARGIN
    for line, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) / 2, line, size, colour)
        y += line_height(size)
    for n, row in enumerate(rows):
        sheet.text(MARGIN, above + (n + 0.5) * _ROW, row.name, WORD_SIZE, MUTED if row.control else INK)
    for panel, name in enumerate(scores):
        left = MARGIN + names + panel * (_PANEL + _GAP)
        sheet.text(left, above - _ROW / 2, name, WORD_SIZE, INK)
        _panel(sheet, rows, panel, left, above)
    return sheet.figure


def _panel(sheet: Sheet, rows: Sequence[Ranked], panel: int, left: int, top: int) -> None:
    found = [row.scores[panel] for row in rows]
    ends = [end for interval in found if interval for end in interval]
    ticks = _ticks(min(ends, default=0.0), max(ends, default=1.0))
    low, high, height = ticks[0], ticks[-1], len(rows) * _ROW
    box = left / sheet.width, 1 - (top + height) / sheet.height, _PANEL / sheet.width, height / sheet.height
    axes = sheet.figure.add_axes(box, xlim=(low, high), ylim=(len(rows) - 0.5, -0.5))
    axes.set_axis_off()
    for tick in ticks:
        axes.axvline(tick, color=_BASE if tick == 0 else _GRID, linewidth=0.8, clip_on=False, zorder=1)
    for tick, x, align in ((low, left, "left"), (high, left + _PANEL, "right")):
        sheet.text(x, top + height + _FOOT / 2, f"{tick:g}".replace("-", "−"), SMALL, MUTED, align=align)
    for n, (row, interval) in enumerate(zip(rows, found, strict=True)):
        if interval is not None:
            colour = _CONTROL if row.control else _MAP
            axes.plot(interval[1:], [n, n], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
            axes.plot([interval[0]], [n], "o", color=colour, markersize=6, clip_on=False, zorder=3)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around an interval, four to seven of them."""
    span = max(high - low, 1e-6)
    magnitude = 10.0 ** math.floor(math.log10(span))
    step = next(s * magnitude for s in (0.2, 0.5, 1, 2, 5) if s * magnitude * 5 >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 9) for n in range(first, max(last, first + 1) + 1)]
