"""Sheets: a picture beside its maps, word by word or method by method.

A sheet is laid out in whole pixels at `DPI`, from the upper left corner, and every panel is computed at the pixels that
it shows. A photograph of twenty million pixels therefore costs no more than a small one.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.errors import InputError
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
    item_width,
)
from visattn.overlay.contour import check_shares, mass_contours
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
from visattn.overlay.text import DPI, line_height, shorten, text_width, wrap

Scale = Literal["shared", "own"]

_TRACK = "#e9ecef"
_RIGHT, _WRONG = "#1a7f37", "#b3261e"
_BAR, _BAR_TRUTH = "#5a6b8c", _RIGHT

# In pixels at DPI; text in points.
_SIDE = 330  # of the square with the area of a panel
_NARROWEST = 190  # place for a word, above however narrow a panel
_WIDEST, _WIDE_ROW = 2400, 1900  # a sheet, and a classifier's single row, where the columns are left to us
_GAP, _ROW_GAP = 26, 26
_STRIP = 260  # the colour scale's length
_BAR_PITCH = 52  # from one class to the next in the list of classes

_PAPER_SIDE = 220  # as _SIDE, where the width is stated
_PAPER_MARGIN = 2  # a figure of a stated width stands in a column of text, which has margins of its own
_NARROWEST_SHEET = 440  # before it is scaled: place for the legend
_PRINTED = 300  # pixels to the inch of its pictures, at least
_CENTIMETRE = DPI / 2.54
_CONTOURS = (1.0, 0.6)  # points of the lines around the first share and the others


class Look(NamedTuple):
    """How maps are drawn; each is an argument of the public functions, which say what it is."""

    scale: Scale
    colour_map: str
    opacity: float
    interpolation: Interpolation
    contour: tuple[float, ...]

    def checked(self) -> "Look":
        """Itself, once its contours are possible; `heatmap` looks at the rest."""
        check_shares(self.contour)
        return self

    def draw(self, picture: np.ndarray, shown: Geometry, weights: np.ndarray, limits: tuple[float, float]) -> "Drawn":
        """A map over a picture, at the pixels shown."""
        pixels = heatmap(
            *(picture, weights, shown),
            limits=limits,
            colour_map=self.colour_map,
            opacity=self.opacity,
            interpolation=self.interpolation,
        )
        return Drawn(pixels, [mass_contours(weights, shown, share, self.interpolation) for share in self.contour])


class Drawn(NamedTuple):
    """A map over a picture, and what lies over it as lines; all at the pixels shown.

    Attributes:
        pixels: (h, w, 3) uint8.
        contours: for each share of the mass, its lines, (n, 2) of (y, x).
        box: (top, left, bottom, right) of the place that was drawn.
    """

    pixels: np.ndarray
    contours: Sequence[list[np.ndarray]] = ()
    box: tuple[float, float, float, float] | None = None

    def put(self, sheet: Sheet, x: int, y: int, points: float = 1.0) -> tuple[float, float]:
        """Put it onto a sheet; (height, width) in the sheet's pixels."""
        height, width = (side / sheet.detail for side in self.pixels.shape[:2])
        sheet.picture(x, y, self.pixels, sheet.detail)
        for n, lines in enumerate(self.contours):
            thickness = _CONTOURS[min(n, 1)] * points
            sheet.lines(x, y, (height, width), [line / sheet.detail for line in lines], thickness)
        if self.box is not None:
            sheet.frame(x, y, tuple(side / sheet.detail for side in self.box), 1.3 * points)
        return height, width


class _Panel(NamedTuple):
    """One picture of a sheet, with a line above and a line under it."""

    drawn: Drawn
    heading: str
    aside: str = ""  # small, at the right end of the heading's line
    note: str = ""
    colour: str = INK


class _Paper(NamedTuple):
    """The size of a sheet: as large as it comes, or of a stated width, and of what size its text is.

    Attributes:
        inner: the width within the margins, in pixels at DPI before all is scaled; None where it is free.
        margin: likewise.
        scale: of all that is drawn.
        detail: pixels of a picture to one of these.
    """

    inner: int | None
    margin: int
    scale: float
    detail: int

    @classmethod
    def of(cls, width: float | None, points: float) -> "_Paper":
        """A sheet `width` centimetres wide, if that is stated, whose words are of so many points."""
        if not 1 <= points <= 100:
            raise InputError(f"text of {points:g} points cannot be read; 8 to 11 is usual")
        scale = points / WORD_SIZE
        if width is None:
            return cls(None, MARGIN, scale, 1)
        inner = round(width * _CENTIMETRE / scale) - 2 * _PAPER_MARGIN
        if not _NARROWEST_SHEET <= inner <= 100 * _NARROWEST_SHEET:
            least, most = ((n * _NARROWEST_SHEET + 2 * _PAPER_MARGIN) * scale / _CENTIMETRE for n in (1, 100))
            raise InputError(
                f"a sheet with words of {points:g} points is from {least:.1f} to {most:.0f} cm wide, not {width:g}"
            )
        return cls(inner, _PAPER_MARGIN, scale, max(1, math.ceil(_PRINTED * scale / DPI)))

    def fit(self, image: np.ndarray, geometry: Geometry, places: int, columns: int | None) -> "_Fitted":
        """The picture as its panels show it, and how many of them stand side by side where that is settled by now."""
        if columns is not None and columns < 1:
            raise InputError(f"a sheet has at least one column, not {columns}")
        if self.inner is None:
            return _Fitted(*as_shown(image, geometry, _SIDE), columns)
        height, width = geometry.original
        usual = min(_PAPER_SIDE / math.sqrt(height * width), 2 * _PAPER_SIDE / max(height, width)) * width
        columns = columns or max(1, round((self.inner + _GAP) / (max(usual, _NARROWEST) + _GAP)))
        columns = min(columns, places)
        slot = (self.inner + _GAP) // columns - _GAP
        if slot < _NARROWEST / 3:
            raise InputError(f"{columns} columns do not fit this width; take fewer, a wider sheet or smaller text")
        return _Fitted(*as_shown(image, geometry, math.inf, slot * self.detail), columns)


class _Fitted(NamedTuple):
    picture: np.ndarray
    shown: Geometry
    columns: int | None


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
    contour: Sequence[float] = (),
    meaning: str = "attention weight α",
    width: float | None = None,
    points: float = WORD_SIZE,
) -> Figure:
    """Draw where a captioner looked at each word (after figure 3 of Xu et al. 2015, "Show, Attend and Tell").

    Args:
        image: (H, W, 3) uint8, the original pixels.
        words: T words, in any script; there may be none. Panels go from left to right whatever the script.
        maps: (T, h, w), the attention weights at each word, or another map of it, not negative.
        geometry: how the original became the model's input.
        scale: "shared" gives all words one colour scale, from 0 to the largest weight of all, so that colours can be
            compared; "own" gives each its own, and writes down where it ends.
        title: one line or a few above all.
        notes: T short texts to stand under the panels, such as β or a word's probability.
        drawn: T indices of the cell that was drawn (hard attention), counted row by row, which is framed; or None.
        columns: panels side by side, the original among them; chosen for a pleasant shape where not given.
        colour_map: see `heatmap`.
        opacity: see `heatmap`.
        interpolation: see `heatmap`: "bilinear" is smooth, "nearest" shows the cells.
        contour: shares between 0 and 1, such as (0.5,): a line around the smallest area that holds each share of the
            map's mass; see `visattn.overlay.contour`.
        meaning: what the colours stand for.
        width: of the whole sheet in centimetres, as a paper's column asks; as large as it comes where not given.
        points: size of the words; all other text keeps its proportion to them.

    Returns:
        A figure that pyplot knows nothing of; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: see `heatmap`; for shares that are none, and a width, a size or columns that cannot be.
        ValueError: where words, maps, notes, drawn cells, image and geometry do not fit each other.
    """
    check_words(image, words, maps, geometry, notes=notes, drawn=drawn)
    look = Look(scale, colour_map, opacity, interpolation, tuple(contour)).checked()
    paper = _Paper.of(width, points)
    picture, shown, columns = paper.fit(image, geometry, len(words) + 1, columns)
    shared = shared_limits(maps)
    panels = [_Panel(Drawn(picture), "original", colour=MUTED)]
    for t, panel in enumerate(draw_words(picture, maps, shown, look, drawn)):
        aside = f"max {maps[t].max():.3g}" if scale == "own" else ""
        if drawn is not None and drawn[t] is not None and panel.box is None:
            aside = " · ".join(filter(None, (aside, "drawn in the margin")))
        panels.append(_Panel(panel, words[t], aside, notes[t] if notes is not None else ""))
    legend = _legend(meaning, shared[1], shown, look, boxes=any(panel.drawn.box for panel in panels))
    header = [(title, TITLE_SIZE, INK)] if title else []
    return _draw(paper, header, panels, legend if len(words) else [], columns)


def check_words(
    image: np.ndarray, words: Sequence[str], maps: np.ndarray, geometry: Geometry, **others: Sequence | None
) -> None:
    """Raise ValueError unless the image is that of the geometry, and each word has a map and one of each other."""
    check_picture(image, geometry)
    for name, given in {"maps": maps, **others}.items():
        if given is not None and len(given) != len(words):
            raise ValueError(f"there are {len(words)} words, but {len(given)} {name}")
    for weights in maps:
        check_map(weights)


def draw_words(
    picture: np.ndarray, maps: np.ndarray, shown: Geometry, look: Look, drawn: Sequence[int | None] | None
) -> Iterator[Drawn]:
    """The picture of each word, one at a time."""
    shared = shared_limits(maps)
    for t, weights in enumerate(maps):
        limits = shared if look.scale == "shared" else shared_limits([weights])
        box = cell_box(shown, weights.shape, drawn[t]) if drawn is not None and drawn[t] is not None else None
        yield look.draw(picture, shown, weights, limits)._replace(box=box)


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
    contour: Sequence[float] = (),
    width: float | None = None,
    points: float = WORD_SIZE,
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
        contour: see `caption_sheet`.
        width: see `caption_sheet`.
        points: see `caption_sheet`.

    Returns:
        A figure that pyplot knows nothing of.

    Raises:
        InputError: see `caption_sheet`.
        ValueError: where maps, image and geometry do not fit each other.
    """
    check_picture(image, geometry)
    for _, weights in maps:
        check_map(weights)
    look = Look(scale, colour_map, opacity, interpolation, tuple(contour)).checked()
    paper = _Paper.of(width, points)
    places = 1 + len(maps) + bool(top)
    picture, shown, columns = paper.fit(image, geometry, places, columns)
    shared = shared_limits(weights for _, weights in maps)
    panels = [_Panel(Drawn(picture), "original", colour=MUTED)]
    for name, weights in maps:
        limits = shared if scale == "shared" else shared_limits([weights])
        aside = f"max {limits[1]:.3g}" if scale == "own" else ""
        panels.append(_Panel(look.draw(picture, shown, weights, limits), name, aside))
    header = [(title, SMALL + 1, MUTED)] if title else []
    header.append((f"predicted: {label}, {_percent(probability)}", TITLE_SIZE, INK))
    if truth is not None:
        right = label == truth
        header.append((f"{'✓' if right else '✗'} truth: {truth}", WORD_SIZE, _RIGHT if right else _WRONG))
    legend = _legend(meaning, shared[1], shown, look) if maps else []
    if columns is None and places * (max(picture.shape[1], _NARROWEST) + _GAP) < _WIDE_ROW:
        columns = places
    return _draw(paper, header, panels, legend, columns, top, truth)


# ---------------------------------------------------------------------------------------------------- what is shown


def _legend(
    meaning: str, high: float, shown: Geometry, look: Look, boxes: bool = False
) -> list[list[str | np.ndarray]]:
    """The items that explain the sheet, each a row of texts and small pictures."""
    strip = np.repeat(colour_strip(_STRIP, look.colour_map, look.opacity), 16, axis=0)
    if look.scale == "shared":
        items = [[meaning, "0", strip, f"{high:.3g}"]]
    else:
        items = [[f"{meaning}, each on its own scale:"], ["0", strip, "its max"]]
    if look.contour:
        line = np.full((9, 44, 3), 255, dtype=np.uint8)
        line[1:8], line[3:6] = 0, 255
        shares = " and ".join(f"{100 * share:.3g} %" for share in look.contour)
        items.append([line, f"smallest area with {shares} of the weight"])
    if boxes:
        box = np.full((22, 22, 3), 255, dtype=np.uint8)
        box[1:-1, 1:-1], box[5:-5, 5:-5] = 0, 120
        box[2:-2, 2:4] = box[2:-2, -4:-2] = box[2:4, 2:-2] = box[-4:-2, 2:-2] = 255
        items.append([box, "the one place used"])
    top, left, bottom, right = shown.visible()
    if top > 0.5 or left > 0.5 or bottom < shown.original[0] - 0.5 or right < shown.original[1] - 0.5:
        items.append([hatched(np.full((22, 40, 3), 150, dtype=np.float32), 0, (330, 330)), "not seen by the model"])
    return items


def _percent(probability: float) -> str:
    """A probability for people: certainty and impossibility are written only where they are exact."""
    percent = 100 * probability
    if 99.5 <= percent < 100:
        return "> 99 %"
    return "< 1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"


# ------------------------------------------------------------------------------------------------------------ layout


def _draw(
    paper: _Paper,
    header: list[tuple[str, float, str]],
    panels: list[_Panel],
    legend: list[list[str | np.ndarray]],
    columns: int | None,
    top: Sequence[tuple[str, float]] = (),
    truth: str | None = None,
) -> Figure:
    """Set header lines (text, points, colour), panels, the list of classes and the legend on one figure."""
    height, width = (math.ceil(side / paper.detail) for side in panels[0].drawn.pixels.shape[:2])
    places = len(panels) + bool(top)
    slot = max(width, _NARROWEST) if paper.inner is None else (paper.inner + _GAP) // columns - _GAP
    panels = _uncrowded(panels, slot)
    pitch = HEADING + height + (NOTE if any(panel.note for panel in panels) else 0) + _ROW_GAP
    if columns is None:
        columns = _columns(places, slot + _GAP, pitch)
    columns = min(columns, places)
    inner = paper.inner or max(columns * (slot + _GAP) - _GAP, 2 * _NARROWEST, *map(item_width, legend))
    header = [(line, size, colour) for text, size, colour in header for line in wrap(text, inner, size, lines=4)]
    head = sum(line_height(size) for _, size, _ in header) + (18 if header else 0)
    flowed = flow(legend, inner)
    rows = math.ceil(places / columns)
    foot = 22 + LEGEND * len(flowed) - min(16, paper.margin) if flowed else 0
    sheet = Sheet(
        2 * paper.margin + inner, 2 * paper.margin + head + rows * pitch - _ROW_GAP + foot, paper.scale, paper.detail
    )

    y = paper.margin
    for text, size, colour in header:
        sheet.text(paper.margin, y + line_height(size) // 2, text, size, colour)
        y += line_height(size)
    y += 18 if header else 0
    for place in range(places):
        x, above = paper.margin + place % columns * (slot + _GAP), y + place // columns * pitch
        if place < len(panels):
            _draw_panel(sheet, panels[place], x, above, slot)
        else:
            _draw_classes(sheet, top, truth, x, above + HEADING, slot, height)
    y += rows * pitch - _ROW_GAP + 22
    sheet.legend(paper.margin, y, flowed)
    return sheet.figure


def _columns(places: int, slot: int, pitch: int) -> int:
    """How many columns give a sheet of a pleasant shape, with few empty places in its last row."""

    def cost(columns: int) -> float:
        rows = math.ceil(places / columns)
        shape = columns * slot / (rows * pitch)
        too_wide = columns > 1 and columns * slot > _WIDEST
        return abs(math.log(shape / 1.7)) + 1.0 * (rows * columns - places) / places + 100 * too_wide

    return min(range(1, places + 1), key=cost)


def _uncrowded(panels: list[_Panel], slot: int) -> list[_Panel]:
    """Where a word and what stands beside it do not fit into one line, what stands beside all goes under the panels."""
    widths = [text_width(p.heading[:99], WORD_SIZE) + 14 + text_width(p.aside, SMALL) for p in panels if p.aside]
    if max(widths, default=0) <= slot:
        return panels
    return [p._replace(aside="", note=" · ".join(filter(None, (p.note, p.aside)))) for p in panels]


def _draw_panel(sheet: Sheet, panel: _Panel, x: int, y: int, slot: int) -> None:
    aside = shorten(panel.aside, slot, SMALL)
    room = slot - (text_width(aside, SMALL) + 14 if aside else 0)
    middle = y + HEADING // 2 - 3
    if panel.heading.strip():
        sheet.text(x, middle, shorten(panel.heading, max(room, slot // 3), WORD_SIZE), WORD_SIZE, panel.colour)
    else:
        sheet.text(x, middle, "(empty)", SMALL, MUTED)
    height, width = panel.drawn.put(sheet, x, y + HEADING)
    if aside:
        sheet.text(x + min(slot, max(width, _NARROWEST)), middle, aside, SMALL, MUTED, align="right")
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
