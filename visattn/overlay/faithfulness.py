"""Deletion and insertion plots: a model's output while the image is removed or restored."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, shorten, text_width, wrap

_COLOURS = ("#2a5a8c", "#d2600a", "#3c8d5a", "#8a4f9e", "#b03a48")  # of maps, in their order, then again
_CONTROL, _GRID, _BASE = "#8b949d", "#dde1e5", "#9aa3ab"
_DASHES = {"map": "-", "random": (0, (1, 1.5)), "centre": (0, (3.2, 1.5))}
_TITLES = ("deletion: the lower the better", "insertion: the higher the better")
_AXES = ("share of the image that is taken away", "share of the image that is there")

# In pixels at DPI; text in points.
_WIDTH, _HEIGHT = 1800, 460  # of the sheet, of a panel
_GAP, _HEAD, _FOOT, _ASIDE, _DASH = 60, 46, 72, 14, 52


class Faithfulness(NamedTuple):
    """What is drawn of one map.

    Attributes:
        name: of the map.
        curves: (2, K + 1) deletion and insertion.
        areas: under both, in the curves' unit.
        kind: "map"; or a control, "random" or "centre", which is drawn in grey.
        spread: (2, K + 1) a standard deviation around the curves, such as that of several random maps; or None.
    """

    name: str
    curves: np.ndarray
    areas: tuple[float, float]
    kind: str = "map"
    spread: np.ndarray | None = None


def faithfulness_sheet(
    maps: Sequence[Faithfulness], share: np.ndarray, *, unit: str, title: str | None = None, note: str = ""
) -> Figure:
    """Draw the curves of several maps on one scale, deletion beside insertion, with the area under each.

    Args:
        maps: see `Faithfulness`; drawn in this order, the first on top.
        share: (K + 1,) of the image, from 0 to 1.
        unit: of the curves, such as "probability of the class"; probabilities are drawn from 0 to 1.
        title: a line above all.
        note: under the title, small: what was measured.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        ValueError: if there is no map, or numbers do not fit each other or are not finite.
    """
    _check(maps, share)
    ticks = _ticks(maps)
    inner = _WIDTH - 2 * MARGIN
    left = _ASIDE + max(text_width(text, SMALL) for text in ticks.values())
    width = (inner - 2 * left - _GAP) // 2
    header = [(line, TITLE_SIZE, INK) for line in wrap(title or "", inner, TITLE_SIZE, lines=2)]
    header += [(line, SMALL, MUTED) for line in wrap(note, inner, SMALL, lines=3)]
    above = sum(line_height(size) for _, size, _ in header) + (14 if header else 0)
    row = line_height(WORD_SIZE)
    sheet = Sheet(_WIDTH, 2 * MARGIN + above + _HEAD + _HEIGHT + _FOOT + (len(maps) + 1) * row)
    y = MARGIN
    for line, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) / 2, line, size, colour)
        y += line_height(size)
    y = MARGIN + above
    for panel in range(2):
        x = MARGIN + left + panel * (width + left + _GAP)
        sheet.text(x, y + _HEAD / 2 - 6, _TITLES[panel], WORD_SIZE, INK)
        axes = _panel(sheet, x, y + _HEAD, width, ticks)
        sheet.text(x + width / 2, y + _HEAD + _HEIGHT + 54, _AXES[panel], SMALL, MUTED, align="center")
        for number in reversed(range(len(maps))):
            _draw(axes, maps[number], share, panel, _colour(maps, number), len(maps) - number)
        _areas(sheet, maps, panel, x, y + _HEAD + _HEIGHT + _FOOT, width, unit)
    return sheet.figure


def _check(maps: Sequence[Faithfulness], share: np.ndarray) -> None:
    if not maps:
        raise ValueError("there is no map to draw")
    for drawn in maps:
        if drawn.kind not in _DASHES:
            raise ValueError(f"'{drawn.name}' is of kind '{drawn.kind}', not one of {', '.join(_DASHES)}")
        for part in (drawn.curves, drawn.spread):
            if part is not None and (np.shape(part) != (2, len(share)) or not np.isfinite(part).all()):
                raise ValueError(f"the curves of '{drawn.name}' must be (2, {len(share)}) finite numbers")


def _ticks(maps: Sequence[Faithfulness]) -> dict[float, str]:
    """The heights that are named, from the lowest of the panels to the highest."""
    curves = np.concatenate([drawn.curves for drawn in maps])
    if curves.min() >= 0 and curves.max() <= 1:
        return {0.0: "0", 0.25: "", 0.5: "0.5", 0.75: "", 1.0: "1"}
    low, high = float(curves.min()), max(float(curves.max()), 0.0)
    magnitude = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * magnitude for s in (0.2, 0.5, 1, 2, 5) if s * magnitude * 6 >= high - low)
    first, last = math.floor(low / step), math.ceil(high / step)
    return {(height := round(n * step, 9)): f"{height:g}".replace("-", "−") for n in range(first, last + 1)}


def _colour(maps: Sequence[Faithfulness], number: int) -> str:
    if maps[number].kind != "map":
        return _CONTROL
    return _COLOURS[sum(drawn.kind == "map" for drawn in maps[:number]) % len(_COLOURS)]


def _panel(sheet: Sheet, x: int, y: int, width: int, ticks: dict[float, str]) -> Axes:
    low, high = min(ticks), max(ticks)
    box = x / sheet.width, 1 - (y + _HEIGHT) / sheet.height, width / sheet.width, _HEIGHT / sheet.height
    axes = sheet.figure.add_axes(box, xlim=(0, 1), ylim=(low, high))
    axes.set_axis_off()
    for tick, text in ticks.items():
        axes.axhline(tick, color=_BASE if tick == low else _GRID, linewidth=0.8, clip_on=False, zorder=1)
        if text:
            sheet.text(x - _ASIDE, y + _HEIGHT * (high - tick) / (high - low), text, SMALL, MUTED, align="right")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        sheet.text(x + part * width, y + _HEIGHT + 20, f"{100 * part:g} %", SMALL, MUTED, align="center")
    return axes


def _draw(axes: Axes, drawn: Faithfulness, share: np.ndarray, panel: int, colour: str, order: int) -> None:
    curve = drawn.curves[panel]
    if drawn.spread is not None:
        spread = drawn.spread[panel]
        axes.fill_between(share, curve - spread, curve + spread, color=colour, alpha=0.25, linewidth=0, zorder=2)
    axes.plot(
        *(share, curve),
        color=colour,
        linestyle=_DASHES[drawn.kind],
        linewidth=2.2 if drawn.kind == "map" else 1.8,
        solid_capstyle="round",
        clip_on=False,
        zorder=2 + order,
    )


def _areas(sheet: Sheet, maps: Sequence[Faithfulness], panel: int, x: int, y: int, width: int, unit: str) -> None:
    """A table under a panel: each map's line, name and area."""
    row = line_height(WORD_SIZE)
    heading = f"area under the curve: mean {unit}"
    sheet.text(x, y + row / 2, shorten(heading, width, SMALL), SMALL, MUTED)
    for number, drawn in enumerate(maps):
        middle = y + (number + 1.5) * row
        box = x / sheet.width, 1 - (middle + 6) / sheet.height, _DASH / sheet.width, 12 / sheet.height
        key = sheet.figure.add_axes(box, xlim=(0, 1), ylim=(0, 1))
        key.set_axis_off()
        colour = _colour(maps, number)
        key.plot([0, 1], [0.5, 0.5], color=colour, linestyle=_DASHES[drawn.kind], linewidth=2.2, clip_on=False)
        number_text = f"{drawn.areas[panel]:.3f}".replace("-", "−")
        right = 3 * width // 4
        sheet.text(x + right, middle, number_text, WORD_SIZE, INK, align="right")
        room = right - _DASH - 3 * _ASIDE - text_width(number_text, WORD_SIZE)
        name = shorten(drawn.name, room, WORD_SIZE)
        sheet.text(x + _DASH + _ASIDE, middle, name, WORD_SIZE, INK if drawn.kind == "map" else MUTED)
