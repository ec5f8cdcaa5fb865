"""Plots in the project's style: matplotlib's constrained layout, without pyplot."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import DPI, clean, font, line_height, shorten, wrap

COLOURS = ("#2a5a8c", "#d2600a", "#3c8d5a", "#8a4f9e", "#b03a48")  # repeated if there are more lines
CONTROL = "#8b949d"  # of baselines such as random maps
DASHED, DOTTED = (0, (3.2, 1.5)), (0, (1, 1.5))
GRID, _BASE = "#dde1e5", "#9aa3ab"
_WIDTH = 11.25  # inches, 1800 pixels


def new_figure(height: float, title: str = "", note: str = "", width: float = _WIDTH) -> Figure:
    """An empty figure with a title above its axes and a small note below them.

    Args:
        height: of the axes and their labels, in inches.
        title: at most two lines are shown.
        note: at most three lines are shown.
        width: in inches.
    """
    inner = DPI * (width - 0.3)
    heading, small = wrap(title, inner, TITLE_SIZE, lines=2), wrap(note, inner, SMALL, lines=3)
    height += (len(heading) * line_height(TITLE_SIZE) + len(small) * line_height(SMALL)) / DPI
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
    if heading:
        figure.suptitle("\n".join(heading), x=0.012, ha="left", **_text(TITLE_SIZE, INK))
    if small:
        figure.supxlabel("\n".join(small), x=0.012, ha="left", **_text(SMALL, MUTED))
    return figure


def panels(
    count: int, columns: int, height: float, entries: int, title: str = "", note: str = "", legends: str = "every row"
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of panels, each above the space for its legend.

    Args:
        count: number of panels.
        columns: panels side by side, at most.
        height: of a panel, in inches.
        entries: lines of the longest legend.
        title: above the panels.
        note: below the panels, small.
        legends: whether "every row" or the "last row" has legends.

    Returns:
        The figure, and for each panel its axes and the empty axes of its legend (see `write_legend`).
    """
    columns = min(count, columns)
    rows, below = math.ceil(count / columns), 0.1 + entries * line_height(SMALL) / DPI
    heights = [height, below] * rows
    if legends == "last row":
        heights[1:-1:2] = [0.05] * (rows - 1)
    figure = new_figure(sum(heights) + rows * 0.8, title, note)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
    for axes in [*grid[1::2].flat, *grid[::2].flat[count:]]:
        axes.set_axis_off()
    return figure, list(zip(grid[::2].flat, grid[1::2].flat, strict=True))[:count]


def style(axes: Axes, title: str = "", along: str = "", lines: int = 3) -> None:
    """Give axes horizontal grid lines, a title on the left and a label of at most `lines` lines below."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_BASE)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelcolor=MUTED, labelsize=SMALL)
    axes.set_title(shorten(title, _room(axes), WORD_SIZE), loc="left", **_text(WORD_SIZE, INK))
    axes.set_xlabel("\n".join(wrap(along, _room(axes), SMALL, lines)), **_text(SMALL, MUTED))


def write_legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Write a legend into axes of its own, one entry per line; labels are truncated to their width."""
    room = _room(axes) - 60
    legend = axes.legend(handles, [shorten(label, room, SMALL) for label in labels], **_legend("upper left"))
    _set_fonts(legend)


def write_figure_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int = 3) -> None:
    """Write a legend below all axes."""
    legend = figure.legend(handles, [clean(label) for label in labels], ncols=columns, **_legend("outside lower left"))
    _set_fonts(legend)


def laid_out(figure: Figure) -> Figure:
    """Compute the layout once, so that the figure is the same whenever it is drawn; call it last."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def label_axis(axes: Axes, label: str) -> None:
    """Name the vertical axis."""
    axes.set_ylabel(clean(label), **_text(SMALL, MUTED))


def colour(number: int) -> str:
    """The colour of a line, by its number."""
    return COLOURS[number % len(COLOURS)]


def stroke(number: int) -> str | tuple[float, tuple[float, ...]]:
    """The stroke of a line, by its number: another one where colours are repeated."""
    return ("-", DASHED, DOTTED)[number // len(COLOURS) % 3]


def minus(text: str) -> str:
    """A number with the typographic minus sign."""
    return text.replace("-", "−")


def _room(axes: Axes) -> float:
    """The width of axes, in pixels, before the layout."""
    columns = axes.get_subplotspec().get_gridspec().ncols
    return DPI * (axes.figure.get_figwidth() - 0.4) / columns - 90


def _text(size: float, ink: str) -> dict[str, Any]:
    return {"fontproperties": font(size), "color": ink, "parse_math": False}


def _legend(place: str) -> dict[str, Any]:
    return {"loc": place, "frameon": False, "borderaxespad": 0.0, "labelcolor": INK, "handlelength": 2.6}


def _set_fonts(legend: Legend) -> None:
    for text in legend.get_texts():
        text.set_fontproperties(font(SMALL))
        text.set_parse_math(False)
