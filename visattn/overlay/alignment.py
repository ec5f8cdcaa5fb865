"""Alignment plots: attention to source words for each target word.

The plot of Bahdanau 2014 (figure 3) and Luong 2015 (figure 7), laid out in whole pixels as the sheets are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.images import Geometry
from visattn.overlay.canvas import (
    HEADING,
    INK,
    LEGEND,
    MARGIN,
    MUTED,
    NOTE,
    SMALL,
    TITLE_SIZE,
    Sheet,
    flow,
    item_width,
)
from visattn.overlay.heatmap import check_map, heatmap, shared_limits
from visattn.overlay.style import COLOUR_MAP, WORD_SIZE
from visattn.overlay.text import DPI, line_height, shorten, text_width, wrap

_EXPECTED = (38, 190, 178)  # a colour that is not in the colour map
_GROUND, _LINE = 30, 58  # under a weight of 0: dark enough that lightness rises with the weight; between the cells

# In pixels at DPI.
_SIDE = 400  # of a panel, as far as the words leave a choice
_SMALLEST, _LARGEST = 26, 44  # a cell, the line around it included
_LONGEST_WORD = 230
_NARROWEST = 200  # place for a title, above however narrow a panel
_WIDEST = 2400  # a sheet, where the columns are left to us
_GAP, _ROW_GAP, _WORD_GAP = 40, 26, 11


class Alignment(NamedTuple):
    """One source and its target, under one mechanism or several.

    Attributes:
        maps: (title, (T, S) weights) of each mechanism.
        source: S words.
        target: T words.
        expected: the true places: (T,) numbers of source words, −1 if there is none; or (T, S), 1 if true.
        drawn: for each mechanism None or, for hard attention, the places that alone were seen, in either form; a
            glimpse's `focus` is one.
        notes: for each mechanism a short text that stands under it.
        heading: a line above.
    """

    maps: Sequence[tuple[str, np.ndarray]]
    source: Sequence[str]
    target: Sequence[str]
    expected: np.ndarray | None = None
    drawn: Sequence[np.ndarray | None] | None = None
    notes: Sequence[str] | None = None
    heading: str | None = None


def alignment_sheet(
    maps: Sequence[tuple[str, np.ndarray]],
    source: Sequence[str],
    target: Sequence[str],
    expected: np.ndarray | None = None,
    *,
    drawn: Sequence[np.ndarray | None] | None = None,
    notes: Sequence[str] | None = None,
    title: str | None = None,
    columns: int | None = None,
    colour_map: str = COLOUR_MAP,
) -> Figure:
    """Draw the alignment of a target with its source, as one mechanism or several side by side have it.

    Args:
        maps: see `Alignment`; one colour scale is shared by all.
        source: see `Alignment`.
        target: see `Alignment`.
        expected: see `Alignment`; these cells are outlined.
        drawn: see `Alignment`; these cells have a dot.
        notes: see `Alignment`.
        title: a line above all.
        columns: mechanisms side by side; as many as fit where not given.
        colour_map: name of a matplotlib colour map.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: for an unknown matplotlib colour map.
        ValueError: if words, weights, places and notes do not fit each other.
    """
    return alignment_sheets([Alignment(maps, source, target, expected, drawn, notes, title)], columns, colour_map)


def alignment_sheets(
    alignments: Sequence[Alignment], columns: int | None = None, colour_map: str = COLOUR_MAP
) -> Figure:
    """Draw several alignments under one another, on one colour scale; otherwise as `alignment_sheet`."""
    for alignment in alignments:
        _check(alignment)
    if not alignments:
        raise ValueError("a sheet needs at least one alignment")
    layout = _layout(alignments, columns)
    limits = shared_limits(weights for a in alignments for _, weights in a.maps)
    legend = _legend(alignments, limits[1], colour_map)
    inner = max(layout.side + layout.columns * (layout.slot + _GAP) - _GAP, *map(item_width, legend))
    flowed = flow(legend, inner)
    headings = [wrap(a.heading or "", inner, TITLE_SIZE, lines=3) for a in alignments]
    heads = [len(lines) * line_height(TITLE_SIZE) + (12 if lines else 0) for lines in headings]
    bodies = [math.ceil(len(a.maps) / layout.columns) * _pitch(a, layout) for a in alignments]
    sheet = Sheet(2 * MARGIN + inner, 2 * MARGIN + sum(heads) + sum(bodies) + LEGEND * len(flowed) - 12)
    y = MARGIN
    for a, lines, head, body in zip(alignments, headings, heads, bodies, strict=True):
        for n, line in enumerate(lines):
            sheet.text(MARGIN, y + (n + 0.5) * line_height(TITLE_SIZE), line, TITLE_SIZE, INK)
        _draw(sheet, a, y + head, layout, limits, colour_map)
        y += head + body
    sheet.legend(MARGIN, y, flowed)
    return sheet.figure


# ------------------------------------------------------------------------------------------------------------ checks


def _check(alignment: Alignment) -> None:
    """Raise ValueError where the parts do not fit each other."""
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
        raise ValueError(f"places must be numbers of the {shape[1]} source words, from 0, or -1 for none")
    return places[:, None] == np.arange(shape[1])


# ---------------------------------------------------------------------------------------------------------- pictures


def _colours(weights: np.ndarray, limits: tuple[float, float], colour_map: str) -> np.ndarray:
    """Weights (T, S) to (T, S, 3) uint8."""
    ground = np.full((*weights.shape, 3), _GROUND, dtype=np.uint8)
    geometry = Geometry.identity(weights.shape)
    return heatmap(ground, weights, geometry, limits=limits, colour_map=colour_map, opacity=1, interpolation="nearest")


def _matrix(
    weights: np.ndarray,
    limits: tuple[float, float],
    colour_map: str,
    cell: int,
    expected: np.ndarray | None,
    drawn: np.ndarray | None,
) -> np.ndarray:
    """(T · cell, S · cell, 3) uint8: square cells parted by white lines."""
    pixels = _colours(np.asarray(weights), limits, colour_map).repeat(cell, 0).repeat(cell, 1)
    for line in (0, -1):
        pixels[line % cell :: cell], pixels[:, line % cell :: cell] = _LINE, _LINE
    for places, mark in ((expected, _outline(cell)), (drawn, _dot(cell))):
        for t, s in np.argwhere(places) if places is not None else ():
            area = pixels[t * cell : (t + 1) * cell, s * cell : (s + 1) * cell]
            area[:] = _over(area, mark)
    return pixels


def _outline(cell: int) -> np.ndarray:
    """(cell, cell, 4) red, green, blue from 0 to 255 and opacity from 0 to 1: the mark of a true place."""
    mark = np.zeros((cell, cell, 4))
    mark[..., :3] = _EXPECTED
    mark[..., 3] = 1
    width = max(2, round(cell / 14))
    mark[width:-width, width:-width, 3] = 0
    return mark


def _dot(cell: int) -> np.ndarray:
    """The mark of the one place seen, visible on any ground; see `_outline`."""
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2
    distance, radius = np.hypot(y, x), cell / 6
    inner, outer = (np.clip(r + 0.5 - distance, 0, 1)[..., None] for r in (radius, radius + 2))
    return np.concatenate([255 * (1 - inner).repeat(3, 2), outer], axis=2)


def _over(ground: np.ndarray, mark: np.ndarray) -> np.ndarray:
    """A mark laid over (cell, cell, 3) pixels."""
    return np.round(ground * (1 - mark[..., 3:]) + mark[..., :3] * mark[..., 3:]).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ layout


class _Layout(NamedTuple):
    """What all panels of a sheet share, so that they stand in columns; in pixels, but `size` of words in points."""

    cell: int
    size: float
    side: int  # for the target words, left of the first column
    slot: int  # for a panel
    columns: int


def _layout(alignments: Sequence[Alignment], columns: int | None) -> _Layout:
    longest = max(max(len(a.source), len(a.target)) for a in alignments)
    cell = max(_SMALLEST, min(_LARGEST, _SIDE // longest))
    size = max(SMALL, min(WORD_SIZE, 0.6 * cell * 72 / DPI))
    side = max(_width_of_words(a.target, size) for a in alignments) + _WORD_GAP
    slot = max(_NARROWEST, *(cell * len(a.source) for a in alignments))
    count = max(len(a.maps) for a in alignments)
    if columns is None:
        fitting = max(1, (_WIDEST - 2 * MARGIN - side + _GAP) // (slot + _GAP))
        columns = math.ceil(count / math.ceil(count / fitting))  # in as few rows as can be, all about equally long
    elif columns < 1:
        raise ValueError(f"a sheet has at least one column, not {columns}")
    return _Layout(cell, size, side, slot, min(columns, count))


def _width_of_words(words: Sequence[str], size: float) -> int:
    return min(_LONGEST_WORD, max(text_width(word, size) for word in words))


def _upright(words: Sequence[str], layout: _Layout) -> bool:
    """Whether every source word is narrow enough to stand upright above its column."""
    return _width_of_words(words, layout.size) <= layout.cell - 4


def _above(words: Sequence[str], layout: _Layout) -> int:
    """The height of the source words above a panel."""
    return line_height(layout.size) if _upright(words, layout) else _width_of_words(words, layout.size) + _WORD_GAP


def _pitch(alignment: Alignment, layout: _Layout) -> int:
    """From one row of an alignment's panels to the next."""
    panel = _above(alignment.source, layout) + layout.cell * len(alignment.target)
    return HEADING + panel + (NOTE if alignment.notes is not None else 0) + _ROW_GAP


def _draw(
    sheet: Sheet, alignment: Alignment, y: int, layout: _Layout, limits: tuple[float, float], colour_map: str
) -> None:
    """One alignment's panels below `y`."""
    cell, size = layout.cell, layout.size
    shape = len(alignment.target), len(alignment.source)
    expected = None if alignment.expected is None else _places(alignment.expected, shape)
    for n, (title, weights) in enumerate(alignment.maps):
        row, column = divmod(n, layout.columns)
        x, top = MARGIN + layout.side + column * (layout.slot + _GAP), y + row * _pitch(alignment, layout)
        sheet.text(x, top + HEADING // 2 - 3, shorten(title, layout.slot, WORD_SIZE), WORD_SIZE, INK)
        top += HEADING + _above(alignment.source, layout)
        for s, word in enumerate(alignment.source):
            middle = x + (s + 0.5) * cell
            if _upright(alignment.source, layout):
                sheet.text(middle, top - line_height(size) / 2 - 2, word, size, INK, align="center")
            else:
                sheet.upward(middle, top - _WORD_GAP + 2, shorten(word, _LONGEST_WORD, size), size, INK)
        for t, word in enumerate(alignment.target if column == 0 else ()):
            text = shorten(word, _LONGEST_WORD, size)
            sheet.text(x - _WORD_GAP, top + (t + 0.5) * cell, text, size, INK, align="right")
        drawn = None if alignment.drawn is None or alignment.drawn[n] is None else _places(alignment.drawn[n], shape)
        sheet.picture(x, top, _matrix(weights, limits, colour_map, cell, expected, drawn))
        if alignment.notes is not None:
            note = shorten(alignment.notes[n], layout.slot, SMALL)
            sheet.text(x, top + cell * shape[0] + NOTE // 2 + 4, note, SMALL, MUTED)


def _legend(alignments: Sequence[Alignment], high: float, colour_map: str) -> list[list[str | np.ndarray]]:
    """The items that explain the sheet; see `flow`."""
    strip = _colours(np.linspace(0, 1, 260)[None], (0.0, 1.0), colour_map).repeat(16, 0)
    items = [["attention weight α", "0", strip, f"{high:.3g}"]]
    ground = np.full((24, 24, 3), _GROUND, dtype=np.uint8)
    if any(a.expected is not None for a in alignments):
        items.append([_over(ground, _outline(24)), "true place"])
    if any(a.drawn is not None and any(d is not None for d in a.drawn) for a in alignments):
        items.append([_over(ground, _dot(24)), "the one place seen"])
    return [*items, ["source across, target down"]]
