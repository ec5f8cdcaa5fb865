"""Sheets: an image and its maps, word by word or method by method.

A sheet is laid out in whole pixels at `DPI`, from the upper left corner, and every panel is computed at the pixels that
it shows. A photograph of twenty million pixels therefore costs no more than a small one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visattn.images import Geometry, Interpolation
from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE
from visattn.overlay.heatmap import check_map, check_picture, colour_strip, hatched, shared_limits
from visattn.overlay.layout import RIGHT, WRONG, Panel, Paper, draw, percent, stand_in_a_row
from visattn.overlay.look import Drawn, Look, Scale, check_words, draw_words
from visattn.overlay.style import COLOUR_MAP, OPACITY, WORD_SIZE

_STRIP = 260  # the colour scale's length


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
        meaning: label of the colour scale.
        width: of the whole sheet in centimetres, as a paper's column asks; as large as it comes where not given.
        points: size of the words; all other text keeps its proportion to them.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: see `heatmap`; for shares that are none, and a width, a size or columns that cannot be.
        ValueError: if words, maps, notes, drawn cells, image and geometry do not fit each other.
    """
    check_words(image, words, maps, geometry, notes=notes, drawn=drawn)
    look = Look(scale, colour_map, opacity, interpolation, tuple(contour)).checked()
    paper = Paper.of(width, points)
    picture, shown, columns = paper.fit(image, geometry, len(words) + 1, columns)
    shared = shared_limits(maps)
    panels = [Panel(Drawn(picture), "original", colour=MUTED)]
    for t, panel in enumerate(draw_words(picture, maps, shown, look, drawn)):
        aside = f"max {maps[t].max():.3g}" if scale == "own" else ""
        if drawn is not None and drawn[t] is not None and panel.box is None:
            aside = " · ".join(filter(None, (aside, "drawn in the margin")))
        panels.append(Panel(panel, words[t], aside, notes[t] if notes is not None else ""))
    legend = _legend(meaning, shared[1], shown, look, boxes=any(panel.drawn.box for panel in panels))
    header = [(title, TITLE_SIZE, INK)] if title else []
    return draw(paper, header, panels, legend if len(words) else [], columns)


def check_style(**style: Any) -> None:
    """Draw a minimal sheet, so that an invalid style is reported before anything is computed.

    Args:
        style: what both kinds of sheets take: scale, colour_map, opacity, interpolation, contour, columns, meaning,
            width, points.

    Raises:
        InputError: as `caption_sheet` does.
    """
    caption_sheet(np.zeros((8, 8, 3), np.uint8), ["a"], np.ones((1, 2, 2)), Geometry.identity((8, 8)), **style)


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
        meaning: label of the colour scale.
        columns: panels side by side; all of them where not given and the sheet does not grow too wide.
        colour_map: see `heatmap`.
        opacity: see `heatmap`.
        interpolation: see `heatmap`.
        contour: see `caption_sheet`.
        width: see `caption_sheet`.
        points: see `caption_sheet`.

    Returns:
        A figure not registered with pyplot.

    Raises:
        InputError: see `caption_sheet`.
        ValueError: if maps, image and geometry do not fit each other.
    """
    check_picture(image, geometry)
    for _, weights in maps:
        check_map(weights)
    look = Look(scale, colour_map, opacity, interpolation, tuple(contour)).checked()
    paper = Paper.of(width, points)
    places = 1 + len(maps) + bool(top)
    picture, shown, columns = paper.fit(image, geometry, places, columns)
    shared = shared_limits(weights for _, weights in maps)
    panels = [Panel(Drawn(picture), "original", colour=MUTED)]
    for name, weights in maps:
        limits = shared if scale == "shared" else shared_limits([weights])
        aside = f"max {limits[1]:.3g}" if scale == "own" else ""
        panels.append(Panel(look.draw(picture, shown, weights, limits), name, aside))
    header = [(title, SMALL + 1, MUTED)] if title else []
    header.append((f"predicted: {label}, {percent(probability)}", TITLE_SIZE, INK))
    if truth is not None:
        right = label == truth
        header.append((f"{'✓' if right else '✗'} truth: {truth}", WORD_SIZE, RIGHT if right else WRONG))
    legend = _legend(meaning, shared[1], shown, look) if maps else []
    if columns is None and stand_in_a_row(places, picture.shape[1]):
        columns = places
    return draw(paper, header, panels, legend, columns, top, truth)


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
