"""A canvas for figures: pixels, text, images and legends, and saving to a file.

Figures are laid out in whole pixels at `DPI`; saved at that resolution nothing is resampled again. They are made
without pyplot: nothing is kept of them once the caller lets go.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from visattn.errors import InputError
from visattn.files import write_bytes
from visattn.overlay.text import DPI, clean, font, text_width

FORMATS = ("png", "svg", "pdf")

INK, MUTED = "#1f2328", "#667079"

# In pixels at DPI; text in points.
MARGIN = 44
HEADING, NOTE, LEGEND = 38, 30, 40  # heights of a line above and under a panel, and of one of the legend
TITLE_SIZE, SMALL = 14.0, 8.5

_PNG_LEVEL = 2  # of zlib: four times as fast as the usual 6, and the files a twelfth larger


class Sheet:
    """A figure addressed in pixels at DPI from its upper left corner.

    Args:
        width: in these pixels.
        height: height in pixels.
        scale: size of all that is drawn, text included, in that of the pixels and points which it is given.
        detail: pixels of a picture to one of the sheet, each way; the figure's own resolution follows.
    """

    def __init__(self, width: int, height: int, scale: float = 1.0, detail: int = 1) -> None:
        self.width, self.height, self.scale, self.detail = width, height, scale, detail
        inches = width * scale / DPI, height * scale / DPI
        self.figure = Figure(figsize=inches, dpi=DPI * detail / scale, facecolor="white")
        self.figure.suppressComposite = True  # SVG and PDF hold each picture by itself, at its own pixels
        FigureCanvasAgg(self.figure)

    def text(self, x: float, middle: float, text: str, size: float, colour: str, align: str = "left") -> None:
        """One line of clean text whose x-height stands around `middle`."""
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
        """A picture (h, w, 3), `detail` of its pixels to one of the sheet's, each way.

        It is an image without axes, which would take twenty times as long to make.
        """
        height, width = (side / detail for side in pixels.shape[:2])
        place = TransformedBbox(self._place(x, y, height, width), self.figure.transFigure)
        image = BboxImage(place, interpolation="nearest", origin="upper")
        image.set_data(pixels)
        self.figure.add_artist(image)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self._rectangle(x, y, width, height, facecolor=colour, linewidth=0)

    def frame(self, x: int, y: int, box: tuple[float, float, float, float], points: float = 1.3) -> None:
        """Frame (top, left, bottom, right) of the picture at (x, y) with a line that is seen on any ground."""
        top, left, bottom, right = box
        for thickness, colour in ((2.2 * points, "black"), (points, "white")):
            self._rectangle(
                *(x + left, y + top, right - left, bottom - top),
                fill=False,
                linewidth=thickness * self.scale,
                edgecolor=colour,
            )

    def lines(
        self, x: int, y: int, size: tuple[float, float], lines: Iterable[np.ndarray], points: float = 1.0
    ) -> None:
        """Lines (n, 2) of (y, x) in the picture of `size` (h, w) at (x, y) and nowhere else, seen on any ground."""
        clip = TransformedBbox(self._place(x, y, *size), self.figure.transFigure)
        for line in lines:
            across, down = (x + line[:, 1]) / self.width, 1 - (y + line[:, 0]) / self.height
            for thickness, colour in ((2.4 * points, "black"), (points, "white")):
                drawn = Line2D(across, down, linewidth=thickness * self.scale, color=colour, solid_joinstyle="round")
                self.figure.add_artist(drawn)
                drawn.set_clip_box(clip)

    def legend(self, x: int, y: int, lines: list[list[list[str | np.ndarray]]]) -> None:
        """Lines of items, as `flow` made them."""
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
        """A rectangle in shares of the figure, from its lower left corner."""
        return Bbox.from_bounds(
            x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        )

    def _rectangle(self, x: float, y: float, width: float, height: float, **look: object) -> None:
        place = self._place(x, y, height, width)
        shape = Rectangle(place.p0, place.width, place.height, **look)
        shape.set_transform(self.figure.transFigure)
        self.figure.add_artist(shape)


def item_width(item: list[str | np.ndarray]) -> int:
    """The width of an item of the legend, without the gap after it."""
    return sum((text_width(part, SMALL) if isinstance(part, str) else part.shape[1]) + 12 for part in item) - 12


def flow(items: list[list[str | np.ndarray]], width: int) -> list[list[list[str | np.ndarray]]]:
    """Items of the legend in lines of at most `width` pixels."""
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
    """A figure as the bytes of a file. Equal figures give equal bytes.

    Args:
        figure: what one of the sheets returned.
        form: one of `FORMATS`. In SVG and PDF text is text, in its own points.
        dpi: pixels to the inch; the figure's own where not given, at which pictures are shown pixel by pixel.
    """
    stream = io.BytesIO()
    if form == "png":
        dpi = dpi or figure.dpi
        Image.fromarray(rasterise(figure, dpi)).save(stream, format="png", compress_level=_PNG_LEVEL, dpi=(dpi, dpi))
        return stream.getvalue()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    look = {"svg.hashsalt": "visattn", "svg.fonttype": "none", "pdf.fonttype": 42, "savefig.bbox": None}
    with rc_context(look):  # a cropped figure would be resampled
        figure.savefig(stream, format=form, dpi=dpi or figure.dpi, metadata=undated, facecolor="white")
    return stream.getvalue()


def rasterise(figure: Figure, dpi: float | None = None) -> np.ndarray:
    """A figure as its pixels (H, W, 3) uint8; `dpi` is that of `encode_figure`."""
    own = figure.dpi
    figure.dpi = dpi or own
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    finally:
        figure.dpi = own
        FigureCanvasAgg(figure)  # instead of the one that holds the pixels, ten million bytes


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float | None = None) -> None:
    """Write a figure, whole or not at all, in the format that the suffix of `path` names.

    Args:
        figure: what `caption_sheet` or `classification_sheet` returned.
        path: ends in .png, .svg or .pdf; its folder exists.
        dpi: see `encode_figure`.

    Raises:
        InputError: for another suffix.
        OSError: if the folder cannot be written.
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"a sheet cannot be saved as '{path}': its name must end in one of {known}")
    write_bytes(path, encode_figure(figure, form, dpi))
