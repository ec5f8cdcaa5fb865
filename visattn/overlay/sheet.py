"""Sheets: a picture beside its maps, word by word or method by method.

A sheet is laid out in whole pixels at `DPI`, from the upper left corner, and every panel is computed at the pixels that
it shows. A photograph of twenty million pixels therefore costs no more than a small one.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.geometry import Geometry, Interpolation
from visattn.overlay.canvas import (
    HEADING,
    INK,
    LEGEND,
    MARGIN,
    MUTED,
    NOTE,
    SMALL,
    TITLE_SIZE,
    WORD_SIZE,
    Sheet,
    flow,
    frame,
    item_width,
)
from visattn.overlay.heatmap import (
    COLOUR_MAP,
    OPACITY,
    as_shown,
    cell_box,
    check_map,
    check_picture,
    colour_strip,
    hatched,
    heatmap,
    shared_limits,
)
from visattn.overlay.text import line_height, shorten, text_width, wrap

Scale = Literal["shared", "own"]

_TRACK = "#e9ecef"
_RIGHT, _WRONG = "#1a7f37", "#b3261e"
_BAR, _BAR_TRUTH = "#5a6b8c", _RIGHT

# In pixels at DPI; text in points.
_SIDE = 330  # of the square with the area of a panel
_NARROWEST = 190  # place for a word, above however narrow a panel
_WIDEST, _WIDE_ROW = 2400, 1900  # a sheet, and a classifier's single row, where the columns are left to us
_GAP, _ROW_GAP = 26, 26
_BAR_PITCH = 52  # from one class to the next in the list of classes


class _Panel(NamedTuple):
    """One picture of a sheet, at the pixels shown, with a line above and a line under it."""

    pixels: np.ndarray  # (h, w, 3) uint8
    heading: str
    aside: str = ""  # small, at the right end of the heading's line
    note: str = ""
    box: tuple[float, float, float, float] | None = None  # (top, left, bottom, right) in shown pixels
    colour: str = INK


def caption_sheet(
    image: np.ndarray,
    words: Sequence[str],
    maps: np.ndarray,
    geometry: Geometry,
    *,
    scale: Scale = "shared",
    title: str | None = None,
    notes: Sequence[str] | None = None,
    drawn: Sequence[int | None] | None = None,
    columns: int | None = None,
    colour_map: str = COLOUR_MAP,
    opacity: float = OPACITY,
    interpolation: Interpolation = "bilinear",
) -> Figure:
    """Draw where a captioner looked at each word (after figure 3 of Xu et al. 2015, "Show, Attend and Tell").

    Args:
        image: (H, W, 3) uint8, the original pixels.
        words: T words, in any script; there may be none.
        maps: (T, h, w), the attention weights at each word.
        geometry: how the original became the model's input.
        scale: "shared" gives all words one colour scale, from 0 to the largest weight of all, so that colours can be
            compared; "own" gives each its own, and writes down where it ends.
        title: one line or a few above all.
        notes: T short texts to stand under the panels, such as β or a word's probability.
        drawn: T indices of the cell that was drawn (hard attention), counted row by row, which is framed; or None.
        columns: panels side by side, the original among them; chosen for a pleasant shape where not given.
        colour_map: see `heatmap`.
        opacity: see `heatmap`.
        interpolation: see `heatmap`.

    Returns:
        A figure that pyplot knows nothing of; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: see `heatmap`.
        ValueError: where words, maps, notes, drawn cells, image and geometry do not fit each other.
    """
    check_picture(image, geometry)
    for name, given in (("maps", maps), ("notes", notes), ("drawn cells", drawn)):
        if given is not None and len(given) != len(words):
            raise ValueError(f"there are {len(words)} words, but {len(given)} {name}")
    for weights in maps:
        check_map(weights)
    picture, shown = as_shown(image, geometry, _SIDE)
    shared = shared_limits(maps)
    panels = [_Panel(picture, "original", colour=MUTED)]
    for t, (word, weights) in enumerate(zip(words, maps, strict=True)):
        limits = shared if scale == "shared" else shared_limits([weights])
        box = cell_box(shown, weights.shape, drawn[t]) if drawn is not None and drawn[t] is not None else None
        pixels = heatmap(
            picture, weights, shown, limits=limits, colour_map=colour_map, opacity=opacity, interpolation=interpolation
        )
        aside = f"max {limits[1]:.3g}" if scale == "own" else ""
        if drawn is not None and drawn[t] is not None and box is None:
            aside = " · ".join(filter(None, (aside, "drawn in the margin")))
        panels.append(_Panel(pixels, word, aside, notes[t] if notes is not None else "", box))
    legend = _legend(
        "attention weight α", scale, shared[1], shown, colour_map, opacity, boxes=any(panel.box for panel in panels)
    )
    header = [(title, TITLE_SIZE, INK)] if title else []
    return _draw(header, panels, legend if len(words) else [], columns)


def classification_sheet(
    image: np.ndarray,
    maps: Sequence[tuple[str, np.ndarray]],
    geometry: Geometry,
    *,
    label: str,
    probability: float,
    top: Sequence[tuple[str, float]] = (),
    truth: str | None = None,
    title: str | None = None,
    scale: Scale = "own",
    meaning: str = "attention",
    columns: int | None = None,
    colour_map: str = COLOUR_MAP,
    opacity: float = OPACITY,
    interpolation: Interpolation = "bilinear",
) -> Figure:
    """Draw what a classifier predicted, and its maps.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        maps: (name, (h, w)) for each map, such as ("rollout", …) and ("last layer", …).
        geometry: how the original became the model's input.
        label: the class predicted.
        probability: of that class, from 0 to 1.
        top: (class, probability) of the likeliest classes, drawn as a list of bars, as many as fit beside the picture.
        truth: the true class, where it is known; it is compared with `label`.
        title: a line above all, such as the image's name.
        scale: "own" for each map, since methods seldom share a unit, or "shared" by all; see `caption_sheet`.
        meaning: what the colours stand for.
        columns: panels side by side; all of them where not given and the sheet does not grow too wide.
        colour_map: see `heatmap`.
        opacity: see `heatmap`.
        interpolation: see `heatmap`.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: see `heatmap`.
        ValueError: where maps, image and geometry do not fit each other.
    """
    check_picture(image, geometry)
    for _, weights in maps:
        check_map(weights)
    picture, shown = as_shown(image, geometry, _SIDE)
    shared = shared_limits(weights for _, weights in maps)
    panels = [_Panel(picture, "original", colour=MUTED)]
    for name, weights in maps:
        limits = shared if scale == "shared" else shared_limits([weights])
        pixels = heatmap(
            picture, weights, shown, limits=limits, colour_map=colour_map, opacity=opacity, interpolation=interpolation
        )
        panels.append(_Panel(pixels, name, f"max {limits[1]:.3g}" if scale == "own" else ""))
    header = [(title, SMALL + 1, MUTED)] if title else []
    header.append((f"predicted: {label}, {_percent(probability)}", TITLE_SIZE, INK))
    if truth is not None:
        right = label == truth
        header.append((f"{'✓' if right else '✗'} truth: {truth}", WORD_SIZE, _RIGHT if right else _WRONG))
    legend = _legend(meaning, scale, shared[1], shown, colour_map, opacity) if maps else []
    places = len(panels) + bool(top)
    if columns is None and places * (max(picture.shape[1], _NARROWEST) + _GAP) < _WIDE_ROW:
        columns = places
    return _draw(header, panels, legend, columns, top, truth)


# ---------------------------------------------------------------------------------------------------- what is shown


def _legend(
    meaning: str, scale: Scale, high: float, shown: Geometry, colour_map: str, opacity: float, boxes: bool = False
) -> list[list[str | np.ndarray]]:
    """The items that explain the sheet, each a row of texts and small pictures."""
    strip = np.repeat(colour_strip(260, colour_map, opacity), 16, axis=0)
    if scale == "shared":
        items = [[meaning, "0", strip, f"{high:.3g}"]]
    else:
        items = [[f"{meaning}, each on its own scale:", "0", strip, "its max"]]
    top, left, bottom, right = shown.visible()
    if boxes:
        box = np.full((22, 22, 3), 255, dtype=np.uint8)
        box[1:-1, 1:-1], box[5:-5, 5:-5] = 0, 120
        box[2:-2, 2:4] = box[2:-2, -4:-2] = box[2:4, 2:-2] = box[-4:-2, 2:-2] = 255
        items.append([box, "the one place used"])
    if top > 0.5 or left > 0.5 or bottom < shown.original[0] - 0.5 or right < shown.original[1] - 0.5:
        items.append([hatched(np.full((22, 40, 3), 150, dtype=np.float32), 0, shown.original), "not seen by the model"])
    return items


def _percent(probability: float) -> str:
    """A probability for people: certainty and impossibility are written only where they are exact."""
    percent = 100 * probability
    if 99.5 <= percent < 100:
        return "> 99 %"
    return "< 1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"


# ------------------------------------------------------------------------------------------------------------ layout


def _draw(
    header: list[tuple[str, float, str]],
    panels: list[_Panel],
    legend: list[list[str | np.ndarray]],
    columns: int | None,
    top: Sequence[tuple[str, float]] = (),
    truth: str | None = None,
) -> Figure:
    """Set header lines (text, points, colour), panels, the list of classes and the legend on one figure."""
    height, width = panels[0].pixels.shape[:2]
    slot = max(width, _NARROWEST)
    pitch = HEADING + height + (NOTE if any(panel.note for panel in panels) else 0) + _ROW_GAP
    places = len(panels) + bool(top)
    if columns is None:
        columns = _columns(places, slot + _GAP, pitch)
    elif columns < 1:
        raise ValueError(f"a sheet has at least one column, not {columns}")
    columns = min(columns, places)
    inner = max(columns * (slot + _GAP) - _GAP, 2 * _NARROWEST, *map(item_width, legend))
    header = [(line, size, colour) for text, size, colour in header for line in wrap(text, inner, size, lines=4)]
    head = sum(line_height(size) for _, size, _ in header) + (18 if header else 0)
    flowed = flow(legend, inner)
    rows = math.ceil(places / columns)
    total = 2 * MARGIN + head + rows * pitch - _ROW_GAP + (22 + LEGEND * len(flowed) - 16 if flowed else 0)
    sheet = Sheet(2 * MARGIN + inner, total)

    y = MARGIN
    for text, size, colour in header:
        sheet.text(MARGIN, y + line_height(size) // 2, text, size, colour)
        y += line_height(size)
    y += 18 if header else 0
    for place in range(places):
        x, above = MARGIN + place % columns * (slot + _GAP), y + place // columns * pitch
        if place < len(panels):
            _draw_panel(sheet, panels[place], x, above, slot)
        else:
            _draw_classes(sheet, top, truth, x, above + HEADING, slot, height)
    y += rows * pitch - _ROW_GAP + 22
    sheet.legend(MARGIN, y, flowed)
    return sheet.figure


def _columns(places: int, slot: int, pitch: int) -> int:
    """How many columns give a sheet of a pleasant shape, with few empty places in its last row."""

    def cost(columns: int) -> float:
        rows = math.ceil(places / columns)
        shape = columns * slot / (rows * pitch)
        too_wide = columns > 1 and columns * slot > _WIDEST
        return abs(math.log(shape / 1.7)) + 0.8 * (rows * columns - places) / places + 100 * too_wide

    return min(range(1, places + 1), key=cost)


def _draw_panel(sheet: Sheet, panel: _Panel, x: int, y: int, slot: int) -> None:
    aside = shorten(panel.aside, slot, SMALL)
    room = slot - (text_width(aside, SMALL) + 14 if aside else 0)
    middle = y + HEADING // 2 - 3
    if panel.heading.strip():
        sheet.text(x, middle, shorten(panel.heading, max(room, slot // 3), WORD_SIZE), WORD_SIZE, panel.colour)
    else:
        sheet.text(x, middle, "(empty)", SMALL, MUTED)
    height, width = panel.pixels.shape[:2]
    if aside:
        sheet.text(x + max(width, _NARROWEST), middle, aside, SMALL, MUTED, align="right")
    axes = sheet.picture(x, y + HEADING, panel.pixels)
    if panel.box is not None:
        frame(axes, panel.box)
    if panel.note:
        sheet.text(x, y + HEADING + height + NOTE // 2 + 3, shorten(panel.note, slot, SMALL), SMALL, MUTED)


def _draw_classes(
    sheet: Sheet, top: Sequence[tuple[str, float]], truth: str | None, x: int, y: int, slot: int, height: int
) -> None:
    """The likeliest classes: name and probability above a bar each, the true class in its own colour."""
    for row, (name, probability) in enumerate(top[: max(1, height // _BAR_PITCH)]):
        middle = y + row * _BAR_PITCH + 14
        number = _percent(probability)
        sheet.text(x, middle, shorten(name, slot - text_width(number, SMALL) - 16, SMALL + 0.5), SMALL + 0.5, INK)
        sheet.text(x + slot, middle, number, SMALL, MUTED, align="right")
        full = np.clip(round(slot * probability), 0, slot)
        sheet.rectangle(x, middle + 16, slot, 7, _TRACK)
        sheet.rectangle(x, middle + 16, int(full), 7, _BAR_TRUTH if name == truth else _BAR)
