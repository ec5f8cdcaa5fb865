"""A sheet of a Vision Transformer's features: principal components as colours, similarity, norms of tokens."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from visattn.images import Geometry, Interpolation
from visattn.overlay.canvas import INK, MUTED, SMALL, TITLE_SIZE, rasterise
from visattn.overlay.heatmap import cell_box, check_map, check_picture, colour_strip, hatched, heatmap
from visattn.overlay.layout import Measures, Panel, draw, stand_in_a_row
from visattn.overlay.maps import ABOVE, Drawn
from visattn.overlay.sheet import framed_item, unseen_items
from visattn.overlay.style import Paper
from visattn.overlay.text import DPI, font

_STRIP = 200  # length of the colour scale
_LINES = ("#b3261e", "#5a6b8c", INK, "#8a5a00", "#1a7f37")
_DARK, _LIGHT = 0.12, 0.92  # of painted colours, which are garish from 0 to 1
_PLOT = (150, 190)  # smallest (height, width) of a plot, in pixels


class FeatureViews(NamedTuple):
    """What is shown of an image's features.

    Attributes:
        colours: (h, w, 3) from 0 to 1, for each patch.
        explained: (3,) shares of the variance of what is red, green and blue.
        norms: (h, w), of the patches in the layer shown.
        artefacts: (h, w) bool, the patches to frame in it.
        by_layer: lines (L,) of norms, by their names.
        layer: number of the layer shown.
        similarity: (h, w) cosines from -1 to 1; None if no patch was asked about.
        asked: index of the patch that was, counted row by row.
    """

    colours: np.ndarray
    explained: np.ndarray
    norms: np.ndarray
    artefacts: np.ndarray
    by_layer: Mapping[str, np.ndarray]
    layer: int
    similarity: np.ndarray | None = None
    asked: int | None = None


def feature_sheet(
    image: np.ndarray,
    views: FeatureViews,
    geometry: Geometry,
    *,
    title: str,
    verdict: str,
    artefact: str,
    interpolation: Interpolation = "bilinear",
) -> Figure:
    """Draw the views of an image's features.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        views: what is shown of it.
        geometry: from the original to the model's input.
        title: one line at the top.
        verdict: what there is to say of artefacts; a line below it.
        artefact: what framed patches of the map of norms are.
        interpolation: between the centres of patches.

    Returns:
        A figure not registered with pyplot.

    Raises:
        ValueError: if image, views and geometry do not match.
    """
    check_picture(image, geometry)
    check_map(views.norms)
    measures, grid = Measures.of(Paper()), views.norms.shape
    picture, shown, _ = measures.fit(image, geometry, 5, None)
    box = None if views.asked is None else cell_box(shown, grid, views.asked)
    panels = [Panel(Drawn(picture, box=box), "original", colour=MUTED)]
    painted = painted_over(picture, views.colours, shown, interpolation)
    shares = " + ".join(f"{100 * share:.0f}" for share in views.explained)
    panels.append(Panel(Drawn(painted, box=box), "PCA", f"{shares}% of variance"))
    if views.similarity is not None:
        low, high = float(views.similarity.min()), float(views.similarity.max())
        pixels = heatmap(picture, views.similarity, shown, limits=(low, high), interpolation=interpolation)
        panels.append(Panel(Drawn(pixels, box=box), "similarity", f"cosine {low:.2f} to {high:.2f}".replace("-", "−")))
    ordinary = views.norms[~views.artefacts]
    low, high = float(ordinary.min()), float(ordinary.max())
    pixels = heatmap(picture, views.norms, shown, limits=(low, high), interpolation=interpolation)
    framed = [cell_box(shown, grid, int(cell)) for cell in np.flatnonzero(views.artefacts)]
    largest = f", max {views.norms.max():.3g}" if views.artefacts.any() else ""
    boxes = [part for part in framed if part is not None]
    panels.append(Panel(Drawn(pixels, above=boxes), "norms", f"{low:.3g} to {high:.3g}{largest}"))
    if picture.shape[0] >= _PLOT[0] and picture.shape[1] >= _PLOT[1]:
        panels.append(Panel(Drawn(_plot(views, picture.shape[:2])), "norms by layer"))
    strip = np.repeat(colour_strip(_STRIP), 16, axis=0)
    legend: list[list[str | np.ndarray]] = [
        ["PCA: components 1, 2, 3 as red, green, blue"],
        ["low", strip, "high, each map on its own scale"],
    ]
    legend += [] if views.asked is None else [framed_item("the patch asked about")]
    legend += [framed_item(f"{artefact} (map of norms)", ABOVE)] if boxes else []
    header = [(title, TITLE_SIZE, INK), (verdict, SMALL + 1, MUTED)]
    columns = len(panels) if stand_in_a_row(len(panels), picture.shape[1]) else None
    return draw(measures, header, panels, [*legend, *unseen_items(shown)], columns)


def painted_over(
    image: np.ndarray, colours: np.ndarray, geometry: Geometry, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """The colours of patches in place of the image; what the model does not see is grey and hatched.

    Args:
        image: (H, W, 3) uint8, the original pixels.
        colours: (h, w, 3) from 0 to 1.
        geometry: from the original to the input.
        interpolation: between the centres of patches.

    Returns:
        (H, W, 3) uint8.
    """
    spread = np.moveaxis(geometry.to_original_map(np.moveaxis(colours, -1, 0), interpolation), 0, -1)
    unseen = hatched(image.astype(np.float32), 0, image.shape[:2])
    return np.where(
        np.isnan(spread), unseen, np.round(255 * (_DARK + (_LIGHT - _DARK) * np.nan_to_num(spread)))
    ).astype(np.uint8)


def _plot(views: FeatureViews, size: tuple[int, int]) -> np.ndarray:
    """The lines of norms by layer, as pixels (h, w, 3) uint8."""
    figure = Figure(figsize=(size[1] / DPI, size[0] / DPI), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    depth = len(views.by_layer["median patch"])
    axes.axvline(views.layer, color="#d5d9de", linewidth=3, zorder=0)
    for (name, line), colour in zip(views.by_layer.items(), _LINES, strict=False):
        axes.plot(range(depth), line, color=colour, linewidth=1.2, label=name, marker="o", markersize=1.6)
    lines = np.concatenate(list(views.by_layer.values()))
    if lines.min() > 0 and lines.max() > 5 * lines.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("layer", fontproperties=font(6.5), color=MUTED, labelpad=1)
    axes.tick_params(length=2, width=0.5, colors=MUTED, which="both")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(font(6.5))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color("#b8bfc6")
        axes.spines[side].set_linewidth(0.6)
    figure.legend(
        loc="outside upper left",
        prop=font(6.5),
        frameon=False,
        ncols=1,
        handlelength=1.2,
        labelspacing=0.25,
        labelcolor=INK,
        borderpad=0.1,
    )
    return rasterise(figure)
