"""Plots of maps' scores: a row for each map, a panel for each score."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from visattn.figures.panels import COLOURS, CONTROL, GRID, laid_out, minus, new_figure, style
from visattn.overlay.canvas import INK
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import clean, font

Interval = tuple[float, float, float]


class Ranked(NamedTuple):
    """A map's scores.

    Attributes:
        name: of the map.
        scores: for each panel mean, low and high; None if it has none.
        control: whether it ignores the image, and is drawn in grey.
    """

    name: str
    scores: tuple[Interval | None, ...]
    control: bool = False


def ranking_sheet(rows: Sequence[Ranked], scores: Sequence[str], *, title: str = "", note: str = "") -> Figure:
    """Draw each map's scores as a point and its interval.

    Args:
        rows: the maps, the first on top.
        scores: names of the panels; each has its own scale.
        title: above the panels.
        note: below the panels, small.

    Raises:
        ValueError: if there is no map, or a map does not have a score or None for each panel.
    """
    if not rows or any(len(row.scores) != len(scores) for row in rows):
        raise ValueError("a ranking needs maps, each with a score or None for every panel")
    figure = new_figure(0.3 * len(rows) + 1.0, title, note, width=2.0 + 1.8 * len(scores))
    for panel, axes in enumerate(figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]):
        style(axes, scores[panel])
        axes.grid(visible=False, axis="y")
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        for n, row in enumerate(rows):
            if (interval := row.scores[panel]) is not None:
                colour = CONTROL if row.control else COLOURS[0]
                axes.plot(interval[1:], [n, n], color=colour, linewidth=2.2, solid_capstyle="butt")
                axes.plot([interval[0]], [n], "o", color=colour, markersize=5, clip_on=False, zorder=3)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(lambda x, _: minus(f"{x:g}"))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [clean(row.name) for row in rows])
        for label in axes.get_yticklabels():
            label.set(fontproperties=font(WORD_SIZE - 1), color=INK, parse_math=False)
    return laid_out(figure)
