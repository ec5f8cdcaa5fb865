"""Layout of a sheet: a header, rows of panels, a list of classes, and the legend."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.errors import InputError
from visattn.images import Geometry
from visattn.overlay.canvas import HEADING, INK, LEGEND, MARGIN, MUTED, NOTE, SMALL, Sheet, flow, item_width
from visattn.overlay.heatmap import as_shown
from visattn.overlay.maps import Drawn
from visattn.overlay.style import WORD_SIZE, Paper
from visattn.overlay.text import DPI, line_height, shorten, text_width, wrap

_TRACK = "#e9ecef"
RIGHT, WRONG = "#1a7f37", "#b3261e"
_BAR, _BAR_TRUTH = "#5a6b8c", RIGHT

# In pixels at DPI; text in points.
_SIDE = 330  # square root of a panel's area
_NARROWEST = 190  # minimum width of a panel's slot, for its word
# Maximum widths of a sheet and of a classifier's row, if columns are not given.
_WIDEST, _WIDE_ROW = 2400, 1900
_GAP, _ROW_GAP = 26, 26
_BAR_PITCH, _LEAST_BARS = 52, 3  # distance between lines in the list of classes, and how many it has at least

_PAPER_SIDE = 220  # as _SIDE, for sheets of a given width
_PAPER_MARGIN = 2  # for sheets of a given width, which go into a text column with its own margins
_NARROWEST_SHEET = 440  # minimum width before scaling, for the legend
_PRINTED = 300  # minimum resolution of its images, in pixels per inch
_CENTIMETRE = DPI / 2.54


class Panel(NamedTuple):
    """One image of a sheet, with a line above and a line below."""

    drawn: Drawn
    heading: str
    aside: str = ""  # small text at the right end of the heading
    note: str = ""
    colour: str = INK


class Measures(NamedTuple):
    """The size of a sheet and of its text.

    Attributes:
        inner: width within the margins, in pixels at DPI before scaling; None if not fixed.
        margin: margin in pixels.
        scale: factor on everything drawn.
        detail: image pixels per sheet pixel.
    """

    inner: int | None
    margin: int
    scale: float
    detail: int

    @classmethod
    def of(cls, paper: Paper) -> "Measures":
        """The measures of a sheet of `paper.width` centimetres, if given, or else as large as needed."""
        width, points = paper.width, paper.points
        if not 1 <= points <= 100:
            raise InputError(f"text of {points:g} points is not readable; use 8 to 11 points")
        scale = points / WORD_SIZE
        if width is None:
            return cls(None, MARGIN, scale, 1)
        inner = round(width * _CENTIMETRE / scale) - 2 * _PAPER_MARGIN
        if not _NARROWEST_SHEET <= inner <= 100 * _NARROWEST_SHEET:
            least, most = ((n * _NARROWEST_SHEET + 2 * _PAPER_MARGIN) * scale / _CENTIMETRE for n in (1, 100))
            raise InputError(
                f"width is {width:g} cm; a sheet with {points:g}-point text must be {least:.1f} to {most:.0f} cm wide"
            )
        return cls(inner, _PAPER_MARGIN, scale, max(1, math.ceil(_PRINTED * scale / DPI)))

    def fit(self, image: np.ndarray, geometry: Geometry, places: int, columns: int | None) -> "Fitted":
        """The image resized for its panels, and the number of columns, if it can be determined yet."""
        if columns is not None and columns < 1:
            raise InputError(f"columns is {columns}; a sheet needs at least one column")
        if self.inner is None:
            return Fitted(*as_shown(image, geometry, _SIDE), columns)
        height, width = geometry.original
        usual = min(_PAPER_SIDE / math.sqrt(height * width), 2 * _PAPER_SIDE / max(height, width)) * width
        columns = columns or max(1, round((self.inner + _GAP) / (max(usual, _NARROWEST) + _GAP)))
        columns = min(columns, places)
        slot = (self.inner + _GAP) // columns - _GAP
        if slot < _NARROWEST / 3:
            raise InputError(
                f"{columns} columns do not fit this width; use fewer columns, a wider sheet or smaller text"
            )
        return Fitted(*as_shown(image, geometry, math.inf, slot * self.detail), columns)


class Fitted(NamedTuple):
    picture: np.ndarray
    shown: Geometry
    columns: int | None


def draw(
    paper: Measures,
    header: list[tuple[str, float, str]],
    panels: list[Panel],
    legend: list[list[str | np.ndarray]],
    columns: int | None,
    top: Sequence[tuple[str, float]] = (),
    truth: str | None = None,
) -> Figure:
    """Draw header lines (text, points, colour), panels, the list of classes and the legend."""
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
    more = max(0, min(len(top), _LEAST_BARS) * _BAR_PITCH - height)  # beside or below images that are low
    foot = 22 + LEGEND * len(flowed) - min(16, paper.margin) if flowed else 0
    body = rows * pitch - _ROW_GAP + more
    sheet = Sheet(2 * paper.margin + inner, 2 * paper.margin + head + body + foot, paper.scale, paper.detail)

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
            _draw_classes(sheet, top, truth, x, above + HEADING, slot, height + more)
    y += body + 22
    sheet.legend(paper.margin, y, flowed)
    return sheet.figure


def stand_in_a_row(places: int, width: int) -> bool:
    """Whether `places` panels with images of `width` fit into one row of reasonable width."""
    return places * (max(width, _NARROWEST) + _GAP) < _WIDE_ROW


def _columns(places: int, slot: int, pitch: int) -> int:
    """The number of columns for a good aspect ratio with few empty places in the last row."""

    def cost(columns: int) -> float:
        rows = math.ceil(places / columns)
        shape = columns * slot / (rows * pitch)
        too_wide = columns > 1 and columns * slot > _WIDEST
        return abs(math.log(shape / 1.7)) + (rows * columns - places) / places + 100 * too_wide

    return min(range(1, places + 1), key=cost)


def _uncrowded(panels: list[Panel], slot: int) -> list[Panel]:
    """If a heading and its aside do not fit into one line, move all asides below the panels."""
    widths = [text_width(p.heading[:99], WORD_SIZE) + 14 + text_width(p.aside, SMALL) for p in panels if p.aside]
    if max(widths, default=0) <= slot:
        return panels
    return [p._replace(aside="", note=" · ".join(filter(None, (p.note, p.aside)))) for p in panels]


def _draw_panel(sheet: Sheet, panel: Panel, x: int, y: int, slot: int) -> None:
    aside = shorten(panel.aside, slot, SMALL)
    room = slot - (text_width(aside, SMALL) + 14 if aside else 0)
    middle = y + HEADING // 2 - 3
    if panel.heading.strip():
        room = max(room, slot // 3)
        size = WORD_SIZE if text_width(panel.heading[:99], WORD_SIZE) <= room else SMALL
        sheet.text(x, middle, shorten(panel.heading, room, size), size, panel.colour)
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
    """Draw the most likely classes with bars of their probabilities; the true class has another colour."""
    for row, (name, probability) in enumerate(top[: max(1, height // _BAR_PITCH)]):
        middle = y + row * _BAR_PITCH + 14
        number = percent(probability)
        sheet.text(x, middle, shorten(name, slot - text_width(number, SMALL) - 16, SMALL + 0.5), SMALL + 0.5, INK)
        sheet.text(x + slot, middle, number, SMALL, MUTED, align="right")
        full = np.clip(round(slot * probability), 0, slot)
        sheet.rectangle(x, middle + 16, slot, 7, _TRACK)
        sheet.rectangle(x, middle + 16, int(full), 7, _BAR_TRUTH if name == truth else _BAR)


def percent(probability: float) -> str:
    """Format a probability; 0% and 100% only if exact."""
    percent = 100 * probability
    if 99.5 <= percent < 100:
        return "> 99%"
    return "< 1%" if 0 < percent < 0.5 else f"{percent:.0f}%"
