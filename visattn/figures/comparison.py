"""Comparison figure: one row per mechanism, one column per word of a caption, the same image in all."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.images import Geometry
from visattn.overlay.canvas import INK, LEGEND, MARGIN, MUTED, SMALL, Sheet, flow, item_width
from visattn.overlay.heatmap import (
    COLOUR_MAP,
    OPACITY,
    as_shown,
    cell_box,
    check_map,
    check_picture,
    colour_strip,
    heatmap,
)
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, shorten, wrap

_SIDE = 132  # of the square with the area of a panel, in pixels
_NARROWEST = 60  # place for a word, above however narrow a panel
_LABEL = 330  # width of the column with the rows' names
_GAP, _SCENE_GAP, _HEAD = 10, 46, 36


class Row(NamedTuple):
    """What one mechanism saw of a caption of T words.

    Attributes:
        name: of the mechanism.
        note: small, under the name, such as what it would have said itself.
        maps: (T, h, w) attention weights.
        drawn: T indices of the cell that was drawn, counted row by row, which is framed; None if none was.
    """

    name: str
    note: str
    maps: np.ndarray
    drawn: Sequence[int | None]


class Comparison(NamedTuple):
    """One picture, a caption of T words, and a row for each mechanism.

    Attributes:
        image: (H, W, 3) uint8, the original pixels.
        words: T words.
        geometry: how the original became the models' input.
        rows: from top to bottom.
    """

    image: np.ndarray
    words: Sequence[str]
    geometry: Geometry
    rows: Sequence[Row]


def comparison_sheet(comparisons: Sequence[Comparison]) -> Figure:
    """Draw comparisons one under the other.

    Each row has one colour scale, from 0 to its largest weight, or to four times the mean weight if that is more; its
    end is written beside it. Mechanisms differ so much in how they spread attention that on a scale for all only the
    sharpest would be seen.

    Raises:
        InputError: see `heatmap`.
        ValueError: if there is nothing to draw, or if words, maps, drawn cells, image and geometry do not fit
            each other.
    """
    if not comparisons or not all(comparison.rows for comparison in comparisons):
        raise ValueError("a comparison needs at least one picture, and each picture at least one row")
    shown = [_checked(comparison) for comparison in comparisons]
    heights = [_HEAD + len(c.rows) * _pitch(c, picture) for c, (picture, _) in zip(comparisons, shown, strict=True)]
    width = max(_slot(picture) * (len(c.words) + 1) for c, (picture, _) in zip(comparisons, shown, strict=True))
    body = sum(heights) + _SCENE_GAP * (len(comparisons) - 1)
    legend = _legend(any(cell is not None for c in comparisons for row in c.rows for cell in row.drawn))
    inner = max(_LABEL + width, *map(item_width, legend), 0)
    flowed = flow(legend, inner)
    sheet = Sheet(2 * MARGIN + inner, 2 * MARGIN + body + LEGEND * len(flowed))
    y = MARGIN
    for comparison, (picture, geometry), height in zip(comparisons, shown, heights, strict=True):
        _draw(sheet, comparison, picture, geometry, y)
        y += height + _SCENE_GAP
    sheet.legend(MARGIN, y - _SCENE_GAP + 14, flowed)
    return sheet.figure


def _checked(comparison: Comparison) -> tuple[np.ndarray, Geometry]:
    """The picture as it is shown."""
    check_picture(comparison.image, comparison.geometry)
    for row in comparison.rows:
        for name, given in (("maps", row.maps), ("drawn cells", row.drawn)):
            if len(given) != len(comparison.words):
                raise ValueError(f"there are {len(comparison.words)} words, but '{row.name}' has {len(given)} {name}")
        for weights in row.maps:
            check_map(weights)
    return as_shown(comparison.image, comparison.geometry, _SIDE)


def _label(row: Row) -> list[tuple[str, float, str]]:
    """The lines before a row, from top to bottom: text, points, colour."""
    lines = [(line, WORD_SIZE, INK) for line in wrap(row.name, _LABEL - 24, WORD_SIZE, lines=2)]
    note = wrap(row.note, _LABEL - 24, SMALL, lines=2) if row.note else []
    return lines + [(line, SMALL, MUTED) for line in (*note, f"scale to {_high(row):.2g}")]


def _high(row: Row) -> float:
    """The end of a row's scale: at least four times the mean, or even maps would cover the picture in bright colour."""
    return max((max(float(weights.max()), 4 * float(weights.mean())) for weights in row.maps), default=0.0)


def _pitch(comparison: Comparison, picture: np.ndarray) -> int:
    """From one row to the next, in pixels: place for the picture and for every label."""
    labels = (sum(line_height(size) for _, size, _ in _label(row)) for row in comparison.rows)
    return max(picture.shape[0], *labels) + _GAP


def _slot(picture: np.ndarray) -> int:
    """From one column to the next, in pixels: place for the picture and for a short word."""
    return max(picture.shape[1], _NARROWEST) + _GAP


def _draw(sheet: Sheet, comparison: Comparison, picture: np.ndarray, geometry: Geometry, y: int) -> None:
    slot, pitch = _slot(picture), _pitch(comparison, picture)
    left = MARGIN + _LABEL + slot  # of the first word's column; the picture itself stands before it
    for t, word in enumerate(comparison.words):
        sheet.text(left + t * slot, y + _HEAD // 2 - 4, shorten(word, slot - _GAP, WORD_SIZE), WORD_SIZE, INK)
    y += _HEAD
    sheet.picture(left - slot, y, picture)
    for row in comparison.rows:
        lines = _label(row)
        top = y + (pitch - _GAP - sum(line_height(size) for _, size, _ in lines)) // 2
        for line, size, colour in lines:
            sheet.text(MARGIN, top + line_height(size) // 2, line, size, colour)
            top += line_height(size)
        for t, weights in enumerate(row.maps):
            sheet.picture(left + t * slot, y, heatmap(picture, weights, geometry, limits=(0.0, _high(row))))
            box = None if row.drawn[t] is None else cell_box(geometry, weights.shape, row.drawn[t])
            if box is not None:
                sheet.frame(left + t * slot, y, box, points=0.8)
        y += pitch


def _legend(boxes: bool) -> list[list[str | np.ndarray]]:
    strip = np.repeat(colour_strip(260, COLOUR_MAP, OPACITY), 16, axis=0)
    items = [["attention weight α, a scale for each row:", "0", strip, "its end"]]
    return [*items, ["framed: the one place used"]] if boxes else items
