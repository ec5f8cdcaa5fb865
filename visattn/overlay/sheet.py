"""Sheets: an image and its maps, word by word or method by method.

Sheets are laid out in whole pixels at `DPI`, and maps are computed at the resolution of the panels, so a photograph of
twenty megapixels takes no longer than a small one.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import ImageColor

from visattn.images import Geometry
from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE
from visattn.overlay.heatmap import cell_box, check_map, check_picture, colour_strip, hatched
from visattn.overlay.layout import RIGHT, WRONG, Measures, Panel, draw, percent, stand_in_a_row
from visattn.overlay.maps import ABOVE, Drawn, check_words, draw_map, draw_words, limits_of
from visattn.overlay.style import WORD_SIZE, Paper, Style

_STRIP = 260  # length of the colour scale
_BOXED, ASKED = "the one place used", "the place whose attention is shown"


def caption_sheet(
    image: np.ndarray,
    words: Sequence[str],
    maps: np.ndarray | Sequence[np.ndarray],
    geometry: Geometry,
    *,
    title: str | None = None,
    probabilities: Sequence[float] | None = None,
    notes: Sequence[str] | None = None,
    drawn: Sequence[int | None] | None = None,
    asked: int | None = None,
    meaning: str = "attention weight α",
    style: Style = Style(),
    paper: Paper = Paper(),
) -> Figure:
    """Draw the attention of a captioner at each word (after Xu et al. 2015, "Show, Attend and Tell", figure 3).

    Args:
        image: (H, W, 3) uint8, the original pixels.
        words: T words, in any script, possibly none. Panels always go from left to right.
        maps: (T, h, w), the attention weights at each word, or other non-negative maps.
        geometry: from the original to the model's input.
        title: one or more lines at the top.
        probabilities: of the T words, from 0 to 1, to print beside them.
        notes: T short texts to print below the panels, such as β.
        drawn: T indices (row by row) of the cell sampled by hard attention, which is framed, or None.
        asked: index of the cell that was asked about, which is framed in the original and in all maps instead; or None.
        meaning: label of the colour scale.
        style: how maps are drawn; its scale is that of all words.
        paper: size of the sheet.

    Returns:
        A figure not registered with pyplot; save it with `save_figure` or `encode_figure`.

    Raises:
        InputError: see `heatmap`; for an invalid width, size or number of columns.
        ValueError: if words, maps, probabilities, notes, drawn cells, image and geometry do not match, or a probability
            is not one.
    """
    drawn = drawn if asked is None else [asked] * len(words)
    check_words(image, words, maps, geometry, probabilities=probabilities, notes=notes, drawn=drawn)
    if wrong := [p for p in (() if probabilities is None else probabilities) if not 0 <= p <= 1]:
        raise ValueError(f"the probability of a word is {wrong[0]}; it must be from 0 to 1")
    measures = Measures.of(paper)
    picture, shown, columns = measures.fit(image, geometry, len(words) + 1, paper.columns)
    shared = limits_of(style, maps)
    place = None if asked is None or not len(maps) else cell_box(shown, maps[0].shape, asked)
    panels = [Panel(Drawn(picture, box=place), "original", colour=MUTED)]
    for t, panel in enumerate(draw_words(picture, maps, shown, style, drawn)):
        aside = _aside(style, maps[t])
        if drawn is not None and drawn[t] is not None and panel.box is None:
            aside = " · ".join(filter(None, (aside, "drawn in the margin")))
        if probabilities is not None:
            aside = " · ".join(filter(None, (aside, percent(probabilities[t]))))
        panels.append(Panel(panel, words[t], aside, notes[t] if notes is not None else ""))
    boxed = _BOXED if asked is None else ASKED
    legend = legend_items(meaning, shared[1], shown, style, [panel.drawn for panel in panels], boxed)
    if probabilities is not None:
        legend.append(["%: probability of the word"])
    header = [(title, TITLE_SIZE, INK)] if title else []
    return draw(measures, header, panels, legend if len(words) else [], columns)


def check_style(style: Style, paper: Paper) -> None:
    """Draw a minimal sheet, so that an invalid style is reported before anything is computed.

    Raises:
        InputError: as `caption_sheet`.
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
    """Draw a classifier's prediction and maps.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        maps: (name, (h, w)) for each map, such as ("rollout", …) and ("last layer", …).
        geometry: from the original to the model's input.
        label: the predicted class.
        probability: of that class, from 0 to 1.
        top: (class, probability) of the most likely classes, drawn as a list of bars, as many as fit next to the image.
        truth: the true class, if known, to compare with `label`.
        asked: index of the cell whose attention the maps are, counted row by row, which is framed; None for a class.
        title: a line at the top, such as the image's name.
        meaning: label of the colour scale.
        style: how maps are drawn; each on its own scale by default, since methods seldom share a unit.
        paper: size of the sheet.

    Returns:
        A figure not registered with pyplot.

    Raises:
        InputError: see `caption_sheet`.
        ValueError: if maps, image and geometry do not match.
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
    legend = legend_items(meaning, shared[1], shown, style, [p.drawn for p in panels], ASKED) if maps else []
    if columns is None and stand_in_a_row(places, picture.shape[1]):
        columns = places
    return draw(measures, header, panels, legend, columns, top, truth)


def _aside(style: Style, weights: np.ndarray) -> str:
    """Where a map's own scale ends."""
    if style.scale == "shared":
        return ""
    high, largest = limits_of(style, [weights])[1], float(weights.max())
    return f"max {largest:.3g}" if high == largest else f"0 to {high:.3g}, max {largest:.3g}"


def legend_items(
    meaning: str, high: float, shown: Geometry, style: Style, panels: Sequence[Drawn], boxed: str = _BOXED
) -> list[list[str | np.ndarray]]:
    """The items of the legend, each a row of texts and small images.

    Args:
        meaning: label of the colour scale.
        high: its end, where all maps share it.
        shown: geometry of the panels.
        style: how maps are drawn.
        panels: all that are drawn.
        boxed: what a framed cell is.
    """
    strip = np.repeat(colour_strip(_STRIP, style.colour_map, style.opacity), 16, axis=0)
    if style.scale == "shared":
        above = any(panel.above for panel in panels)
        items = [[meaning, "0", strip, f"{'≥ ' if above else ''}{high:.3g}"]]
    else:
        items = [
            [f"{meaning}, each on its own scale:"],
            ["0", strip, "its end" if any(panel.above for panel in panels) else "its max"],
        ]
    if style.contour:
        line = np.full((9, 44, 3), 255, dtype=np.uint8)
        line[1:8], line[3:6] = 0, 255
        shares = " and ".join(f"{100 * share:.3g}%" for share in style.contour)
        items.append([line, f"smallest area with {shares} of the weight"])
    for shown_as, what, colour in (("box", boxed, "white"), ("above", "far above the end of the scale", ABOVE)):
        if any(getattr(panel, shown_as) for panel in panels):
            items.append(framed_item(what, colour))
    return [*items, *unseen_items(shown)]


def framed_item(what: str, colour: str = "white") -> list[str | np.ndarray]:
    """A legend item that says what cells framed in a colour are."""
    box = np.full((22, 22, 3), 255, dtype=np.uint8)
    box[1:-1, 1:-1] = 0
    box[2:-2, 2:-2] = ImageColor.getrgb(colour)
    box[4:-4, 4:-4], box[5:-5, 5:-5] = 0, 120
    return [box, what]


def unseen_items(shown: Geometry) -> list[list[str | np.ndarray]]:
    """The legend item of the parts that the model does not see; none if it sees all."""
    top, left, bottom, right = shown.visible()
    if top > 0.5 or left > 0.5 or bottom < shown.original[0] - 0.5 or right < shown.original[1] - 0.5:
        return [[hatched(np.full((22, 40, 3), 150, dtype=np.float32), 0, (330, 330)), "not seen by the model"]]
    return []
