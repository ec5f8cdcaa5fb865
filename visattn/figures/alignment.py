"""Alignment plots: attention to source words for each target word (Bahdanau 2014, figure 3; Luong 2015, figure 7)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from visattn.figures.panels import label_axis, laid_out, new_figure, style, write_figure_legend
from visattn.overlay.canvas import INK, MUTED, SMALL
from visattn.overlay.heatmap import check_map, shared_limits
from visattn.overlay.style import COLOUR_MAP
from visattn.overlay.text import DPI, font, shorten, text_width

_EXPECTED = "#26beb2"  # a colour that the default colour map does not have
_CELL = 0.24  # inches, as far as the number of words allows
_NARROWEST, _WIDEST = 1.5, 14.0  # inches: of a panel, of all panels of a row
_LONGEST_WORD = 180  # pixels
_DOT = {"linestyle": "none", "marker": "o", "markersize": 4.5, "markerfacecolor": "black", "markeredgecolor": "white"}


class Alignment(NamedTuple):
    """One source and its target, under one mechanism or several.

    Attributes:
        maps: (title, (T, S) weights) of each mechanism.
        source: S words.
        target: T words.
        expected: the true places: (T,) indices of source words, -1 if there is none; or (T, S), 1 if true.
        drawn: for each mechanism None or, for hard attention, the sampled places in either form, such as a glimpse's
            `focus`.
        notes: for each mechanism a short text below its panel.
        heading: left of the row of panels.
    """

    maps: Sequence[tuple[str, np.ndarray]]
    source: Sequence[str]
    target: Sequence[str]
    expected: np.ndarray | None = None
    drawn: Sequence[np.ndarray | None] | None = None
    notes: Sequence[str] | None = None
    heading: str = ""


def alignment_sheet(alignments: Sequence[Alignment], *, title: str = "") -> Figure:
    """Draw a row of panels per alignment, a panel per mechanism, with one colour scale for all.

    True places are outlined, sampled places have a dot.

    Args:
        alignments: see `Alignment`.
        title: above the panels.

    Raises:
        ValueError: if words, weights, places and notes do not match.
    """
    if not alignments:
        raise ValueError("a sheet needs at least one alignment")
    for alignment in alignments:
        _check(alignment)
    high = shared_limits(weights for a in alignments for _, weights in a.maps)[1]
    columns = max(len(a.maps) for a in alignments)
    cell = min(_CELL, _WIDEST / (columns * max(len(a.source) for a in alignments)))
    words = [word for a in alignments for word in (*a.source, *a.target)]
    beside = min(_LONGEST_WORD, max(text_width(word, SMALL) for word in words)) / DPI
    tall = [cell * len(a.target) for a in alignments]
    wide = max(_NARROWEST, *(cell * len(a.source) for a in alignments))
    size = sum(tall) + len(tall) * (beside + 0.95) + 0.7, columns * (wide + 0.2) + beside + 1.4
    figure = new_figure(size[0], title, width=size[1])
    grid = figure.subplots(len(alignments), columns, squeeze=False, height_ratios=tall)
    for alignment, row, height in zip(alignments, grid, tall, strict=True):
        for axes in row[len(alignment.maps) :]:
            axes.set_axis_off()
        for number, axes in enumerate(row[: len(alignment.maps)]):
            _draw(axes, alignment, number, high)
        label_axis(row[0], shorten(alignment.heading, DPI * height, SMALL))
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, shrink=0.8, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label("attention weight α", fontproperties=font(SMALL), color=MUTED)
    bar.ax.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    _write_legend(figure, alignments)
    return laid_out(figure)


def _check(alignment: Alignment) -> None:
    shape = len(alignment.target), len(alignment.source)
    if not (alignment.maps and all(shape)):
        raise ValueError("an alignment needs at least one map, one source word and one target word")
    for name, given in (("drawn places", alignment.drawn), ("notes", alignment.notes)):
        if given is not None and len(given) != len(alignment.maps):
            raise ValueError(f"there are {len(alignment.maps)} maps, but {len(given)} {name}")
    for title, weights in alignment.maps:
        if np.shape(weights) != shape:
            raise ValueError(
                f"the weights of '{title}' must be (T, S) = {shape}, a row for each target word, and are "
                f"{np.shape(weights)}"
            )
        check_map(weights)
    for places in (alignment.expected, *(alignment.drawn or ())):
        if places is not None:
            _places(places, shape)


def _places(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Places in either form of `Alignment.expected` as (T, S) bool."""
    places = np.asarray(places)
    if places.shape == shape:
        if not np.isin(places, (0, 1)).all():
            raise ValueError("places given as (T, S) must be 0 or 1")
        return places.astype(bool)
    if places.shape != shape[:1]:
        raise ValueError(f"places must be (T,) = {shape[:1]} or (T, S) = {shape}, and are {places.shape}")
    if not np.isin(places, np.arange(-1, shape[1])).all():
        raise ValueError(f"places must be indices of the {shape[1]} source words, from 0, or -1 for none")
    return places[:, None] == np.arange(shape[1])


def _draw(axes: Axes, alignment: Alignment, number: int, high: float) -> None:
    """The panel of one mechanism."""
    title, weights = alignment.maps[number]
    shape = weights.shape
    style(axes, title, alignment.notes[number] if alignment.notes is not None else "", lines=1)
    axes.imshow(weights, cmap=COLOUR_MAP, vmin=0, vmax=high or 1, interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    for side, words in ((axes.xaxis, alignment.source), (axes.yaxis, alignment.target if number == 0 else ())):
        side.set_ticks(np.arange(len(words)), [shorten(word, _LONGEST_WORD, SMALL) for word in words])
        for label in side.get_ticklabels():
            label.set(fontproperties=font(SMALL), color=INK, parse_math=False)
    if max(map(len, alignment.source)) > 2:
        axes.tick_params(axis="x", labelrotation=90)
    if alignment.expected is not None:
        for t, s in np.argwhere(_places(alignment.expected, shape)):
            axes.add_patch(Rectangle((s - 0.46, t - 0.46), 0.92, 0.92, fill=False, edgecolor=_EXPECTED, linewidth=1.3))
    if alignment.drawn is not None and alignment.drawn[number] is not None:
        t, s = np.nonzero(_places(alignment.drawn[number], shape))
        axes.plot(s, t, **_DOT)


def _write_legend(figure: Figure, alignments: Sequence[Alignment]) -> None:
    entries = [(Line2D([], [], linestyle="none"), "source words across, target words down")]
    if any(a.expected is not None for a in alignments):
        entries.append((Patch(facecolor="none", edgecolor=_EXPECTED), "true place"))
    if any(places is not None for a in alignments for places in a.drawn or ()):
        entries.append((Line2D([], [], **_DOT), "sampled place"))
    write_figure_legend(figure, *zip(*entries, strict=True))
