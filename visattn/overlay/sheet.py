"""Sheets: an image and its maps, word by word or method by method.

A sheet is laid out in whole pixels at `DPI`, from the upper left corner, and every panel is computed at the pixels that
it shows. A photograph of twenty million pixels therefore costs no more than a small one.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from visattn.images import Geometry
from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE
from visattn.overlay.heatmap import cell_box, check_map, check_picture, colour_strip, hatched
from visattn.overlay.layout import RIGHT, WRONG, Measures, Panel, draw, percent, stand_in_a_row
from visattn.overlay.maps import Drawn, check_words, draw_map, draw_words, limits_of
from visattn.overlay.style import WORD_SIZE, Paper, Style

_STRIP = 260  # the colour scale's length
_BOXED, _ASKED = "the one place used", "the place whose attention is shown"


def caption_sheet(
    image: np.ndarray,
    words: Sequence[str],
    maps: np.ndarray,
    geometry: Geometry,
    *,
    title: str | None = None,
    notes: Sequence[str] | None = None,
    drawn: Sequence[int | None] | None = None,
    asked: int | None = None,
    meaning: str = "attention weight α",
    style: Style = Style(),
    paper: Paper = Paper(),
) -> Figure:
    """Draw where a captioner looked at each word (after figure 3 of Xu et al. 2015, "Show, Attend and Tell").

    Args:
        image: (H, W, 3) uint8, the original pixels.
        words: T words, in any script; there may be none. Panels go from left to right whatever the script.
        maps: (T, h, w), the attention weights at each word, or another map of it, not negative.
        geometry: how the original became the model's input.
        title: one line or a few above all.
        notes: T short texts to stand under the panels, such as β or a word's probability.
        drawn: T indices of the cell that was drawn (hard attention), counted row by row, which is framed; or None.
        asked: index of the cell that was asked about, which is framed in all maps instead; or None.
        meaning: label of the colour scale.
        style: how maps are drawn; its scale is that of all words.
        paper: size of the sheet.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        InputError: see `heatmap`; for a width, a size or columns that cannot be.
        ValueError: if words, maps, notes, drawn cells, image and geometry do not fit each other.
    """
    drawn = drawn if asked is None else [asked] * len(words)
    check_words(image, words, maps, geometry, notes=notes, drawn=drawn)
    measures = Measures.of(paper)
    picture, shown, columns = measures.fit(image, geometry, len(words) + 1, paper.columns)
    shared = limits_of(style, maps)
    panels = [Panel(Drawn(picture), "original", colour=MUTED)]
    for t, panel in enumerate(draw_words(picture, maps, shown, style, drawn)):
        aside = _aside(style, maps[t])
        if drawn is not None and drawn[t] is not None and panel.box is None:
            aside = " · ".join(filter(None, (aside, "drawn in the margin")))
        panels.append(Panel(panel, words[t], aside, notes[t] if notes is not None else ""))
    legend = _legend(meaning, shared[1], shown, style, panels, _BOXED if asked is None else _ASKED)
    header = [(title, TITLE_SIZE, INK)] if title else []
    return draw(measures, header, panels, legend if len(words) else [], columns)


def check_style(style: Style, paper: Paper) -> None:
    """Draw a minimal sheet, so that an invalid style is reported before anything is computed.

    Raises:
        InputError: as `caption_sheet` does.
    """
    tiny = np.zeros((8, 8, 3), np.uint8), ["a"], np.ones((1, 2, 2)), Geometry.identity((8, 8))
    caption_sheet(*tiny, style=style, paper=paper)


def classification_sheet(
    image: np.ndarray,
    maps: Sequence[tuple[str, np.ndarray]],
    geometry: Geometry,
    *,
    label: str,
    probability: float,
    top: Sequence[tuple[str, float]] = (),
    truth: str | None = None,
    asked: int | None = None,
    title: str | None = None,
    meaning: str = "attention",
    style: Style = Style("own", end="robust"),
    paper: Paper = Paper(),
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
        asked: index of the cell whose attention the maps are, counted row by row, which is framed; None for a class.
        title: a line above all, such as the image's name.
        meaning: label of the colour scale.
        style: how maps are drawn; each on its own scale by default, since methods seldom share a unit.
        paper: size of the sheet.

    Returns:
        A figure not registered with pyplot.

    Raises:
        InputError: see `caption_sheet`.
        ValueError: if maps, image and geometry do not fit each other.
    """
    check_picture(image, geometry)
    for _, weights in maps:
        check_map(weights)
    measures = Measures.of(paper)
    places = 1 + len(maps) + bool(top)
    picture, shown, columns = measures.fit(image, geometry, places, paper.columns)
    shared = limits_of(style, [weights for _, weights in maps])
    box = None if asked is None or not maps else cell_box(shown, maps[0][1].shape, asked)
    panels = [Panel(Drawn(picture, box=box), "original", colour=MUTED)]
    for name, weights in maps:
        limits = shared if style.scale == "shared" else limits_of(style, [weights])
        drawn = draw_map(style, picture, shown, weights, limits)._replace(box=box)
        panels.append(Panel(drawn, name, _aside(style, weights)))
    header = [(title, SMALL + 1, MUTED)] if title else []
    header.append((f"predicted: {label}, {percent(probability)}", TITLE_SIZE, INK))
    if truth is not None:
        right = label == truth
        header.append((f"{'✓' if right else '✗'} truth: {truth}", WORD_SIZE, RIGHT if right else WRONG))
    legend = _legend(meaning, shared[1], shown, style, panels, _ASKED) if maps else []
    if columns is None and stand_in_a_row(places, picture.shape[1]):
        columns = places
    return draw(measures, header, panels, legend, columns, top, truth)


def _aside(style: Style, weights: np.ndarray) -> str:
    """Where a map's own scale ends."""
    if style.scale == "shared":
        return ""
    high, largest = limits_of(style, [weights])[1], float(weights.max())
    return f"max {largest:.3g}" if high == largest else f"0 to {high:.3g}, max {largest:.3g}"


def _legend(
    meaning: str, high: float, shown: Geometry, style: Style, panels: Sequence[Panel], boxed: str
) -> list[list[str | np.ndarray]]:
    """The items that explain the sheet, each a row of texts and small pictures."""
    strip = np.repeat(colour_strip(_STRIP, style.colour_map, style.opacity), 16, axis=0)
    if style.scale == "shared":
        above = any(panel.drawn.above for panel in panels)
        items = [[meaning, "0", strip, f"{'≥ ' if above else ''}{high:.3g}"]]
    else:
        items = [
            [f"{meaning}, each on its own scale:"],
            ["0", strip, "its end" if any(panel.drawn.above for panel in panels) else "its max"],
        ]
    if style.contour:
        line = np.full((9, 44, 3), 255, dtype=np.uint8)
        line[1:8], line[3:6] = 0, 255
        shares = " and ".join(f"{100 * share:.3g} %" for share in style.contour)
        items.append([line, f"smallest area with {shares} of the weight"])
    for shown_as, what in (("box", boxed), ("above", "far above the end of the scale")):
        if any(getattr(panel.drawn, shown_as) for panel in panels):
            box = np.full((22, 22, 3), 255, dtype=np.uint8)
            box[1:-1, 1:-1], box[5:-5, 5:-5] = 0, 120
            box[2:-2, 2:4] = box[2:-2, -4:-2] = box[2:4, 2:-2] = box[-4:-2, 2:-2] = 255
            items.append([box, what])
    top, left, bottom, right = shown.visible()
    if top > 0.5 or left > 0.5 or bottom < shown.original[0] - 0.5 or right < shown.original[1] - 0.5:
        items.append([hatched(np.full((22, 40, 3), 150, dtype=np.float32), 0, (330, 330)), "not seen by the model"])
    return items
