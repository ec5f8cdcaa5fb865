"""Scaling plots: cost against problem size, as small panels with common logarithmic axes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, shorten, text_width, wrap

_COLOURS = ("#2a5a8c", "#d2600a", "#3c8d5a", "#8a4f9e")
_GRID, _BASE, _PROPORTION = "#dde1e5", "#9aa3ab", "#8b949d"
_DOTTED = (0, (1, 1.5))

# In pixels at DPI; text in points.
_WIDTH, _HEIGHT = 1800, 300  # of the sheet, of a panel
_COLUMNS = 3
_GAP, _HEAD, _FOOT, _ASIDE, _KEY, _ROW_GAP = 56, 46, 76, 14, 44, 40


class Curve(NamedTuple):
    """A cost along something.

    Attributes:
        name: whose cost.
        x: (N,) what it depends on, rising, more than 0.
        y: (N,) the cost, more than 0.
    """

    name: str
    x: np.ndarray
    y: np.ndarray


class Growth(NamedTuple):
    """A panel: curves along the same thing.

    Attributes:
        title: what is measured.
        along: what the cost depends on.
        curves: at least one; all have the same x.
        power: of x that stands for "in proportion": 2 if x is a side and work goes with the area, 0 if x is a
            number of things and costs are those of one.
    """

    title: str
    along: str
    curves: Sequence[Curve]
    power: float = 1.0


def growth_sheet(panels: Sequence[Growth], *, unit: str, title: str | None = None, note: str = "") -> Figure:
    """Draw how costs grow, one panel for each thing that they depend on; both axes are logarithmic.

    Heights are the same in all panels, so costs can be compared across them. A dotted line continues from the first
    point of the first curve in proportion. Under a panel stands each curve's first and last cost.

    Args:
        panels: see `Growth`.
        unit: of the costs.
        title: a line above all.
        note: under the title, small, beside what the dotted line is.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        ValueError: if there is no panel or no curve, or numbers cannot be drawn.
    """
    _check(panels)
    low, high = _decades(panels)
    ticks = {10.0**n: f"{10.0**n:g}" for n in range(low, high + 1)}
    inner, columns = _WIDTH - 2 * MARGIN, min(_COLUMNS, len(panels))
    left = _ASIDE + max(text_width(text, SMALL) for text in ticks.values())
    width = (inner - columns * left - (columns - 1) * _GAP) // columns
    said = f"{unit}; dotted: in proportion. {note}".strip()
    header = [(line, TITLE_SIZE, INK) for line in wrap(title or "", inner, TITLE_SIZE, lines=2)]
    header += [(line, SMALL, MUTED) for line in wrap(said, inner, SMALL, lines=3)]
    above = sum(line_height(size) for _, size, _ in header) + 14
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [_HEAD + _HEIGHT + _FOOT + max(len(panel.curves) for panel in row) * line_height(SMALL) for row in rows]
    sheet = Sheet(_WIDTH, 2 * MARGIN + above + sum(heights) + (len(rows) - 1) * _ROW_GAP)
    y = MARGIN
    for line, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) / 2, line, size, colour)
        y += line_height(size)
    y = MARGIN + above
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            x = MARGIN + left + column * (width + left + _GAP)
            sheet.text(x, y + _HEAD / 2 - 6, shorten(panel.title, width, WORD_SIZE), WORD_SIZE, INK)
            _draw(_panel(sheet, panel, x, y + _HEAD, width, ticks), panel)
            _key(sheet, panel, x, y + _HEAD + _HEIGHT + _FOOT, width)
        y += height + _ROW_GAP
    return sheet.figure


def _check(panels: Sequence[Growth]) -> None:
    if not panels or not all(panel.curves for panel in panels):
        raise ValueError("there is nothing to draw: every panel needs a curve")
    for panel in panels:
        first = panel.curves[0].x
        for curve in panel.curves:
            if not np.array_equal(curve.x, first) or curve.y.shape != first.shape:
                raise ValueError(f"the curves of '{panel.title}' must have the same x, and a y for each")
            if not (np.isfinite(curve.y).all() and (curve.y > 0).all() and (curve.x > 0).all()):
                raise ValueError(f"'{curve.name}' of '{panel.title}' must be of finite numbers more than 0")
            if not (np.diff(curve.x) > 0).all():
                raise ValueError(f"the x of '{panel.title}' must rise")


def _decades(panels: Sequence[Growth]) -> tuple[int, int]:
    """The powers of ten between which all costs lie."""
    costs = np.concatenate([curve.y for panel in panels for curve in panel.curves])
    low, high = math.floor(math.log10(costs.min())), math.ceil(math.log10(costs.max()))
    return low, max(high, low + 1)


def _panel(sheet: Sheet, panel: Growth, x: int, y: int, width: int, ticks: dict[float, str]) -> Axes:
    """The empty panel with its grid and what is written around it."""
    low, high = min(ticks), max(ticks)
    along = panel.curves[0].x
    first, last = (along[0], along[-1]) if len(along) > 1 else (along[0] / 2, along[0] * 2)
    box = x / sheet.width, 1 - (y + _HEIGHT) / sheet.height, width / sheet.width, _HEIGHT / sheet.height
    axes = sheet.figure.add_axes(box, xlim=(first, last), ylim=(low, high), xscale="log", yscale="log")
    axes.set_axis_off()
    for tick, text in ticks.items():
        axes.axhline(tick, color=_BASE if tick == low else _GRID, linewidth=0.8, clip_on=False, zorder=1)
        share = math.log(high / tick) / math.log(high / low)
        sheet.text(x - _ASIDE, y + _HEIGHT * share, text, SMALL, MUTED, align="right")
    for value in along:
        place = x + width * math.log(value / first) / math.log(last / first)
        sheet.text(place, y + _HEIGHT + 20, f"{value:g}", SMALL, MUTED, align="center")
    sheet.text(x + width / 2, y + _HEIGHT + 54, panel.along, SMALL, MUTED, align="center")
    return axes


def _draw(axes: Axes, panel: Growth) -> None:
    first = panel.curves[0]
    proportion = first.y[0] * (first.x / first.x[0]) ** panel.power
    axes.plot(first.x, proportion, color=_PROPORTION, linestyle=_DOTTED, linewidth=1.6, zorder=2)
    for number, curve in enumerate(panel.curves):
        axes.plot(
            *(curve.x, curve.y),
            color=_COLOURS[number % len(_COLOURS)],
            linewidth=2.2,
            marker="o",
            markersize=4.5,
            solid_capstyle="round",
            clip_on=False,
            zorder=3,
        )


def _key(sheet: Sheet, panel: Growth, x: int, y: int, width: int) -> None:
    """Each curve's line, name, and first and last cost."""
    row = line_height(SMALL)
    for number, curve in enumerate(panel.curves):
        middle = y + (number + 0.5) * row
        sheet.rectangle(x, middle - 2, _KEY, 4, _COLOURS[number % len(_COLOURS)])
        numbers = f"{_number(curve.y[0])} → {_number(curve.y[-1])}"
        sheet.text(x + width, middle, numbers, SMALL, INK, align="right")
        room = width - _KEY - 3 * _ASIDE - text_width(numbers, SMALL)
        sheet.text(x + _KEY + _ASIDE, middle, shorten(curve.name, room, SMALL), SMALL, INK)


def _number(cost: float) -> str:
    """With two digits, or all before the point."""
    return f"{cost:.0f}" if cost >= 10 else f"{cost:.2g}"
