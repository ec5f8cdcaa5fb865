"""A wall of maps: one row for each layer, one column for each head, over one image."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from visattn.errors import InputError
from visattn.images import Geometry
from visattn.images.geometry import pair
from visattn.overlay.canvas import INK, LEGEND, MUTED, SMALL, TITLE_SIZE, Sheet, flow, item_width
from visattn.overlay.heatmap import as_shown, cell_box, check_map, check_picture
from visattn.overlay.layout import Measures
from visattn.overlay.maps import Drawn, draw_map, limits_of
from visattn.overlay.sheet import ASKED, caption_sheet, legend_items
from visattn.overlay.style import Paper, Style
from visattn.overlay.text import line_height, shorten, text_width, wrap

_WIDTH = 1500  # of all columns together, where the sheet's own is free; in pixels at DPI
_SIDES = (92, 150)  # of the square with the area of a panel, for many and for few columns
_ORIGINAL = 1.6  # the original's size to that of a panel
_NARROWEST = 30  # a panel of a sheet whose width is stated
_GAP, _HEAD = 6, 30


def wall_sheet(
    image: np.ndarray,
    maps: np.ndarray,
    geometry: Geometry,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str | None = None,
    asked: int | None = None,
    meaning: str = "attention",
    style: Style = Style("own", end="robust"),
    paper: Paper = Paper(),
) -> Figure:
    """Draw maps in a table; those of a single row or column flow from left to right, each with its own name.

    Panels of a table show what the model saw, without colours of its own, which would be taken for weights; it is
    framed in the original.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        maps: (R, C, h, w), not negative.
        geometry: how the original became the model's input.
        rows: R names, such as those of layers.
        columns: C names, such as those of heads.
        title: one line or a few above all.
        asked: index of the cell whose attention the maps are, counted row by row, which is framed; None for a class.
        meaning: label of the colour scale.
        style: how maps are drawn; each on its own scale by default, since layers and heads differ.
        paper: size of the sheet; the columns of a table are given by its maps.

    Returns:
        A figure not registered with pyplot.

    Raises:
        InputError: see `caption_sheet`; if so many columns do not fit a stated width.
        ValueError: if maps, names, image and geometry do not fit each other.
    """
    if maps.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"there are {len(rows)} × {len(columns)} names for {maps.shape[0]} × {maps.shape[1]} maps")
    if 1 in maps.shape[:2]:
        names = columns if len(rows) == 1 else rows
        flat = maps.reshape(-1, *maps.shape[2:])
        said = {"title": title, "asked": asked, "meaning": meaning}
        return caption_sheet(image, names, flat, geometry, **said, style=style, paper=paper)
    check_picture(image, geometry)
    for weights in maps.reshape(-1, *maps.shape[2:]):
        check_map(weights)
    measures = Measures.of(paper)
    label = max(text_width(name, SMALL) for name in rows) + 16
    picture, shown = _at_size(*_seen(image, geometry), measures, label, len(columns))
    height, width = (math.ceil(side / measures.detail) for side in picture.shape[:2])
    slot, pitch = width + _GAP, height + _GAP
    shared = limits_of(style, maps.reshape(-1, *maps.shape[2:]))
    box = None if asked is None else cell_box(shown, maps.shape[2:], asked)
    drawn = [[_drawn(style, picture, shown, weights, shared)._replace(box=box) for weights in row] for row in maps]
    items = legend_items(meaning, shared[1], shown, style, [panel for row in drawn for panel in row], ASKED)
    cropped = geometry.visible() != (0.0, 0.0, *geometry.original)
    if cropped:
        items.append(["framed in the original: what the model saw"])
    inner = measures.inner or max(label + slot * len(columns) - _GAP, *map(item_width, items))
    flowed = flow(items, inner)
    lines = wrap(title, inner, TITLE_SIZE, lines=4) if title else []
    head = sum(line_height(TITLE_SIZE) for _ in lines) + (18 if lines else 0)
    whole, framed = as_shown(image, geometry, _ORIGINAL * math.sqrt(height * width) * measures.detail)
    top = math.ceil(whole.shape[0] / measures.detail) + 22
    body = _HEAD + pitch * len(rows) - _GAP
    margin = measures.margin
    sheet = Sheet(
        *(2 * margin + inner, 2 * margin + head + top + body + 14 + LEGEND * len(flowed)),
        *(measures.scale, measures.detail),
    )
    y = margin
    for line in lines:
        sheet.text(margin, y + line_height(TITLE_SIZE) // 2, line, TITLE_SIZE, INK)
        y += line_height(TITLE_SIZE)
    y = margin + head
    sheet.picture(margin + label, y, whole, measures.detail)
    if cropped:
        sheet.frame(margin + label, y, tuple(side / measures.detail for side in framed.visible()), 0.8)
    if asked is not None and (place := cell_box(framed, maps.shape[2:], asked)) is not None:
        sheet.frame(margin + label, y, tuple(side / measures.detail for side in place))
    sheet.text(margin, y + 12, "original", SMALL, MUTED)
    y += top
    for column, name in enumerate(columns):
        sheet.text(margin + label + column * slot, y + _HEAD // 2 - 2, _fitted(name, width), SMALL, INK)
    y += _HEAD
    for name, panels in zip(rows, drawn, strict=True):
        sheet.text(margin, y + height // 2, name, SMALL, INK)
        for column, panel in enumerate(panels):
            panel.put(sheet, margin + label + column * slot, y, 0.6)
        y += pitch
    sheet.legend(margin, y - _GAP + 14, flowed)
    return sheet.figure


def _seen(image: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """Of an image the pixels that the model saw wholly, in grey, and how they became the input."""
    sides = zip(geometry.visible()[:2], geometry.original, strict=True)
    top, left = (min(math.ceil(side), n - 1) for side, n in sides)
    bottom, right = (max(math.floor(side), n + 1) for side, n in zip(geometry.visible()[2:], (top, left), strict=True))
    grey = np.asarray(Image.fromarray(image[top:bottom, left:right]).convert("L"))
    offset = pair(o - n * s for o, n, s in zip(geometry.offset, (top, left), geometry.scale, strict=True))
    cropped = geometry._replace(original=(bottom - top, right - left), offset=offset)
    return np.repeat(grey[..., None], 3, axis=2), cropped


def _at_size(
    image: np.ndarray, geometry: Geometry, measures: Measures, label: int, columns: int
) -> tuple[np.ndarray, Geometry]:
    """The picture as the panels show it."""
    if measures.inner is None:
        side = min(_SIDES[1], max(_SIDES[0], _WIDTH / columns))
        return as_shown(image, geometry, side)
    width = (measures.inner - label + _GAP) // columns - _GAP
    if width < _NARROWEST:
        raise InputError(f"{columns} columns do not fit this width; choose fewer heads, a wider sheet or smaller text")
    return as_shown(image, geometry, math.inf, width * measures.detail)


def _drawn(
    style: Style, picture: np.ndarray, shown: Geometry, weights: np.ndarray, shared: tuple[float, float]
) -> Drawn:
    return draw_map(style, picture, shown, weights, shared if style.scale == "shared" else limits_of(style, [weights]))


def _fitted(name: str, width: int) -> str:
    """A column's name, or, where it is too long for it, its last word."""
    return name if text_width(name, SMALL) <= width else shorten(name.rpartition(" ")[2], width, SMALL)
