"""Training curves: one panel per metric, one line per run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet, flow, item_width
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, shorten, text_width, wrap

_COLOURS = ("#2a5a8c", "#d2600a", "#3c8d5a", "#8a4f9e", "#b03a48")  # of runs, in their order, then again
_GRID, _BASE = "#dde1e5", "#9aa3ab"

# In pixels at DPI; text in points.
_WIDTH, _HEIGHT = 1800, 480  # of the sheet, of a panel
_GAP, _HEAD, _FOOT, _ASIDE = 70, 50, 64, 14


class Curves(NamedTuple):
    """One number of every run.

    Attributes:
        name: of the number.
        lines: of each run, by its name: (K,) epochs and (K,) values.
        ticks: heights that are named, ascending; the first and the last are the panel's ends.
        form: how a height is written, such as "{:.0%}".
        end_form: how the last value of a line is written; as a height where it is empty.
    """

    name: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ticks: Sequence[float]
    form: str = "{:g}"
    end_form: str = ""

    @property
    def ends(self) -> str:
        return self.end_form or self.form


def curves_sheet(panels: Sequence[Curves], *, title: str = "", note: str = "") -> Figure:
    """Draw panels side by side over one span of epochs; the last value of each line is written beside its end.

    Args:
        panels: at least one, all with lines.
        title: a line above all.
        note: under the title, small.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        ValueError: if there is no panel, or epochs and values of a line are not alike many finite numbers.
    """
    for panel in panels:
        for run, (epochs, values) in panel.lines.items():
            if np.shape(epochs) != np.shape(values) or not np.isfinite([epochs, values]).all() or not len(values):
                raise ValueError(f"the line of '{run}' in '{panel.name}' must have as many finite values as epochs")
    if not panels or not all(panel.lines for panel in panels):
        raise ValueError("there is nothing to draw")
    runs = list(dict.fromkeys(run for panel in panels for run in panel.lines))
    end = max(float(epochs.max()) for panel in panels for epochs, _ in panel.lines.values())
    inner = _WIDTH - 2 * MARGIN
    header = [(line, TITLE_SIZE, INK) for line in (wrap(title, inner, TITLE_SIZE, lines=2) if title else [])]
    header += [(line, SMALL, MUTED) for line in (wrap(note, inner, SMALL, lines=3) if note else [])]
    above = sum(line_height(size) for _, size, _ in header) + (14 if header else 0)
    legend = flow([[shorten(run, inner, SMALL)] for run in runs], inner) if len(runs) > 1 else []
    below = line_height(SMALL) + 8
    sheet = Sheet(_WIDTH, 2 * MARGIN + above + _HEAD + _HEIGHT + _FOOT + (14 + len(legend) * below if legend else 0))
    y = MARGIN
    for line, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) / 2, line, size, colour)
        y += line_height(size)
    left = _ASIDE + max(text_width(p.form.format(tick), SMALL) for p in panels for tick in p.ticks)
    right = _ASIDE + max(
        text_width(p.ends.format(float(values[-1])), WORD_SIZE) for p in panels for _, values in p.lines.values()
    )
    width = (inner - (len(panels) - 1) * _GAP) // len(panels) - left - right
    y = MARGIN + above
    for number, panel in enumerate(panels):
        x = MARGIN + left + number * (left + width + right + _GAP)
        sheet.text(x, y + _HEAD / 2 - 8, panel.name, WORD_SIZE, INK)
        _draw(sheet, panel, runs, end, (x, y + _HEAD, width))
    colours = iter([_colour(runs, run) for run in runs])
    for row, items in enumerate(legend):
        x = MARGIN
        for item in items:
            sheet.text(x, y + _HEAD + _HEIGHT + _FOOT + 14 + (row + 0.5) * below, item[0], SMALL, next(colours))
            x += item_width(item) + 40
    return sheet.figure


def _draw(sheet: Sheet, panel: Curves, runs: list[str], end: float, place: tuple[int, int, int]) -> None:
    x, y, width = place
    low, high = panel.ticks[0], panel.ticks[-1]
    box = x / sheet.width, 1 - (y + _HEIGHT) / sheet.height, width / sheet.width, _HEIGHT / sheet.height
    axes = sheet.figure.add_axes(box, xlim=(0, end), ylim=(low, high))
    axes.set_axis_off()

    def down(value: float) -> float:
        return y + _HEIGHT * (high - value) / (high - low)

    for tick in panel.ticks:
        axes.axhline(tick, color=_BASE if tick == low else _GRID, linewidth=0.8, clip_on=False, zorder=1)
        sheet.text(x - _ASIDE, down(tick), panel.form.format(tick), SMALL, MUTED, align="right")
    step = next((s for s in (1, 2, 5, 10, 20, 50) if end / s <= 6.5), 100)
    for epoch in np.arange(0, end + 0.01, step):
        sheet.text(x + width * epoch / end, y + _HEIGHT + 20, f"{epoch:g}", SMALL, MUTED, align="center")
    sheet.text(x + width / 2, y + _HEIGHT + 50, "epoch", SMALL, MUTED, align="center")
    ends = {run: float(values[-1]) for run, (_, values) in panel.lines.items()}
    heights = [down(min(max(value, low), high)) for value in ends.values()]
    heights = _apart(heights, line_height(WORD_SIZE), (y, y + _HEIGHT))
    for (run, (epochs, values)), height in zip(panel.lines.items(), heights, strict=True):
        colour = _colour(runs, run)
        axes.plot(epochs, values, color=colour, linewidth=2.0, solid_capstyle="round", clip_on=True, zorder=3)
        sheet.text(x + width + _ASIDE, height, panel.ends.format(ends[run]), WORD_SIZE, colour)


def _apart(heights: Sequence[float], gap: float, span: tuple[float, float]) -> list[float]:
    """Heights at least `gap` from each other, in the same order and within the span where there is room.

    Those that are too close are spread evenly around their mean.
    """
    groups: list[list[int]] = []  # whose heights belong together, from the top

    def middle(members: list[int]) -> float:
        half = gap * (len(members) - 1) / 2
        return min(
            max(sum(heights[n] for n in members) / len(members), span[0] + half), max(span[1] - half, span[0] + half)
        )

    for number in sorted(range(len(heights)), key=lambda n: heights[n]):
        members = [number]
        while groups and middle(members) - middle(groups[-1]) < gap * (len(members) + len(groups[-1])) / 2:
            members = [*groups.pop(), *members]
        groups.append(members)
    found = [0.0] * len(heights)
    for members in groups:
        for place, number in enumerate(members):
            found[number] = middle(members) + gap * (place - (len(members) - 1) / 2)
    return found


def _colour(runs: list[str], run: str) -> str:
    return _COLOURS[runs.index(run) % len(_COLOURS)]
