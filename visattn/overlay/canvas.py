"""A canvas for figures: pixels, text, images and legends, and saving to a file.

Figures are laid out in whole pixels at `DPI`, so nothing is resampled when they are saved at that resolution. They are
made without pyplot, which would keep them in memory.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from visattn.errors import InputError
from visattn.fast import enabled
from visattn.fast.png import encode_png
from visattn.files import write_bytes
from visattn.overlay.text import DPI, clean, font, text_width

FORMATS = ("png", "svg", "pdf")

INK, MUTED = "#1f2328", "#667079"

# In pixels at DPI; text in points.
MARGIN = 44
HEADING, NOTE, LEGEND = 38, 30, 40  # heights of the lines above and below a panel, and of a legend line
TITLE_SIZE, SMALL = 14.0, 8.5

_PNG_LEVEL = 2  # of zlib: four times as fast as the default, 6, with files 8% larger


class Sheet:
    """A figure addressed in pixels at DPI from its top-left corner.

    Args:
        width: width in pixels.
        height: height in pixels.
        scale: factor on everything drawn, including text.
        detail: image pixels per sheet pixel on each axis; it determines the figure's resolution.
    """

    def __init__(self, width: int, height: int, scale: float = 1.0, detail: int = 1) -> None:
        self.width, self.height, self.scale, self.detail = width, height, scale, detail
        inches = width * scale / DPI, height * scale / DPI
        self.figure = Figure(figsize=inches, dpi=DPI * detail / scale, facecolor="white")
        self.figure.suppressComposite = True  # SVG and PDF then keep each image separate, at its own resolution
        FigureCanvasAgg(self.figure)

    def text(self, x: float, middle: float, text: str, size: float, colour: str, align: str = "left") -> None:
        """Draw one line of text, vertically centred on its x-height at `middle`."""
        baseline = 1 - (middle + 0.36 * size * DPI / 72) / self.height
        self.figure.text(
            *(x / self.width, baseline, clean(text)),
            fontproperties=font(size * self.scale),
            color=colour,
            ha=align,
            va="baseline",
            parse_math=False,
        )

    def picture(self, x: int, y: int, pixels: np.ndarray, detail: int = 1) -> None:
        """Draw an image (h, w, 3) with `detail` image pixels per sheet pixel on each axis.

        No axes are created, since they would take twenty times as long.
        """
        height, width = (side / detail for side in pixels.shape[:2])
        place = TransformedBbox(self._place(x, y, height, width), self.figure.transFigure)
        image = _Pixels(place, interpolation="nearest", origin="upper")
        image.set_data(pixels)
        self.figure.add_artist(image)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle."""
        self._rectangle(x, y, width, height, facecolor=colour, linewidth=0)

    def frame(
        self, x: int, y: int, box: tuple[float, float, float, float], points: float = 1.3, colour: str = "white"
    ) -> None:
        """Frame (top, left, bottom, right) of the image at (x, y) with a light line, visible on any background."""
        top, left, bottom, right = box
        for thickness, line in ((2.2 * points, "black"), (points, colour)):
            self._rectangle(
                *(x + left, y + top, right - left, bottom - top),
                fill=False,
                linewidth=thickness * self.scale,
                edgecolor=line,
            )

    def lines(
        self, x: int, y: int, size: tuple[float, float], lines: Iterable[np.ndarray], points: float = 1.0
    ) -> None:
        """Draw lines (n, 2) of (y, x), visible on any background, clipped to the image of `size` (h, w) at (x, y)."""
        clip = TransformedBbox(self._place(x, y, *size), self.figure.transFigure)
        for line in lines:
            across, down = (x + line[:, 1]) / self.width, 1 - (y + line[:, 0]) / self.height
            for thickness, colour in ((2.4 * points, "black"), (points, "white")):
                drawn = Line2D(across, down, linewidth=thickness * self.scale, color=colour, solid_joinstyle="round")
                self.figure.add_artist(drawn)
                drawn.set_clip_box(clip)

    def legend(self, x: int, y: int, lines: list[list[list[str | np.ndarray]]]) -> None:
        """Draw lines of legend items, as `flow` returns them."""
        for line in lines:
            left = x
            for item in line:
                for part in item:
                    if isinstance(part, str):
                        self.text(left, y + LEGEND // 2, part, SMALL, MUTED)
                        left += text_width(part, SMALL) + 12
                    else:
                        self.picture(left, y + (LEGEND - part.shape[0]) // 2, part)
                        left += part.shape[1] + 12
                left += 28
            y += LEGEND

    def _place(self, x: float, y: float, height: float, width: float) -> Bbox:
        """A rectangle in figure coordinates, from 0 to 1, with the origin at the bottom left."""
        return Bbox.from_bounds(
            x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        )

    def _rectangle(self, x: float, y: float, width: float, height: float, **look: object) -> None:
        place = self._place(x, y, height, width)
        shape = Rectangle(place.p0, place.width, place.height, **look)
        shape.set_transform(self.figure.transFigure)
        self.figure.add_artist(shape)


class _Pixels(BboxImage):
    """An image that is copied, not resampled, where each of its pixels is one of the canvas: a third of the time."""

    def make_image(self, renderer: RendererBase, magnification: float = 1.0, unsampled: bool = False) -> tuple:
        """(RGBA with the lowest row first, left, bottom, transform), as in matplotlib."""
        pixels, corners = self.get_array(), self.get_window_extent(renderer).get_points()
        (left, bottom), (right, top) = whole = np.rint(corners).astype(int)
        on_grid = magnification == 1 and np.abs(whole - corners).max() < 1e-3
        if unsampled or not on_grid or pixels.shape[:2] != (top - bottom, right - left):
            return super().make_image(renderer, magnification, unsampled)
        rgba = np.full((*pixels.shape[:2], 4), 255, np.uint8)
        rgba[..., :3] = pixels[::-1]
        return rgba, float(left), float(bottom), None


def item_width(item: list[str | np.ndarray]) -> int:
    """The width of a legend item, without the gap after it."""
    return sum((text_width(part, SMALL) if isinstance(part, str) else part.shape[1]) + 12 for part in item) - 12


def flow(items: list[list[str | np.ndarray]], width: int) -> list[list[list[str | np.ndarray]]]:
    """Break legend items into lines of at most `width` pixels."""
    lines: list[list[list[str | np.ndarray]]] = []
    left = 0
    for item in items:
        if not lines or item_width(item) > left:
            lines.append([])
            left = width
        lines[-1].append(item)
        left -= item_width(item) + 40
    return lines


def encode_figure(figure: Figure, form: str = "png", dpi: float | None = None) -> bytes:
    """Encode a figure as the bytes of a file. Equal figures give equal bytes.

    Args:
        figure: as returned by the sheet functions.
        form: one of `FORMATS`. In SVG and PDF text remains text.
        dpi: resolution; by default the figure's own, at which images are not resampled.
    """
    stream = io.BytesIO()
    if form == "png":
        dpi = dpi or figure.dpi
        pixels = rasterise(figure, dpi)
        if enabled():
            return encode_png(pixels, dpi)
        Image.fromarray(pixels).save(stream, format="png", compress_level=_PNG_LEVEL, dpi=(dpi, dpi))
        return stream.getvalue()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    look = {"svg.hashsalt": "visattn", "svg.fonttype": "none", "pdf.fonttype": 42, "savefig.bbox": None}
    with rc_context(look):  # a cropped figure would be resampled
        figure.savefig(stream, format=form, dpi=dpi or figure.dpi, metadata=undated, facecolor="white")
    return stream.getvalue()


def rasterise(figure: Figure, dpi: float | None = None) -> np.ndarray:
    """Render a figure to pixels (H, W, 3) uint8; `dpi` as in `encode_figure`."""
    own = figure.dpi
    figure.dpi = dpi or own
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    finally:
        figure.dpi = own
        FigureCanvasAgg(figure)  # replaces the canvas with the pixels, about 10 MB


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float | None = None) -> None:
    """Write a figure atomically, in the format given by the suffix of `path`.

    Args:
        figure: as returned by `caption_sheet` or `classification_sheet`.
        path: ends in .png, .svg or .pdf; its folder must exist.
        dpi: see `encode_figure`.

    Raises:
        InputError: for other suffixes.
        OSError: if the folder cannot be written to.
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"a sheet cannot be saved as '{path}': its name must end in one of {known}")
    write_bytes(path, encode_figure(figure, form, dpi))
