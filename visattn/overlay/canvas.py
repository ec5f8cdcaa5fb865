"""What every figure is drawn on: pixels from the upper left corner, text, pictures, legends, and how it is saved.

Figures are laid out in whole pixels at `DPI`; saved at that resolution nothing is resampled again. They are made
without pyplot: nothing is kept of them once the caller lets go.
"""

import io
import os
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from visattn.errors import InputError
from visattn.files import write_bytes
from visattn.overlay.text import DPI, clean, font, text_width

FORMATS = ("png", "svg", "pdf")

INK, MUTED = "#1f2328", "#667079"

# In pixels at DPI; text in points.
MARGIN = 44
HEADING, NOTE, LEGEND = 38, 30, 40  # heights of a line above and under a panel, and of one of the legend
WORD_SIZE, TITLE_SIZE, SMALL = 11.0, 14.0, 8.5


class Sheet:
    """A figure addressed in pixels at DPI from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def text(self, x: float, middle: float, text: str, size: float, colour: str, align: str = "left") -> None:
        """One line of clean text whose x-height stands around `middle`."""
        baseline = 1 - (middle + 0.36 * size * DPI / 72) / self.height
        self.figure.text(
            *(x / self.width, baseline, clean(text)),
            fontproperties=font(size),
            color=colour,
            ha=align,
            va="baseline",
            parse_math=False,
        )

    def upward(self, middle: float, y: float, text: str, size: float, colour: str) -> None:
        """One line of clean text that begins at `y` and reads upwards, its x-height around `middle`."""
        self.figure.text(
            *((middle + 0.36 * size * DPI / 72) / self.width, 1 - y / self.height, clean(text)),
            fontproperties=font(size),
            color=colour,
            rotation="vertical",
            rotation_mode="anchor",
            va="baseline",
            parse_math=False,
        )

    def picture(self, x: int, y: int, pixels: np.ndarray) -> Axes:
        """A picture (h, w, 3), one of its pixels to one of the sheet's; data coordinates are its pixels."""
        height, width = pixels.shape[:2]
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_axis_off()
        axes.imshow(pixels, extent=(0, width, height, 0), aspect="auto")
        return axes

    def rectangle(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """A filled rectangle."""
        corner = (x / self.width, 1 - (y + height) / self.height)
        shape = Rectangle(corner, width / self.width, height / self.height, facecolor=colour, linewidth=0)
        shape.set_transform(self.figure.transFigure)
        self.figure.add_artist(shape)

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


def frame(axes: Axes, box: tuple[float, float, float, float], width: float = 1.3) -> None:
    """Frame (top, left, bottom, right) of a picture with a line of so many points, so that it is seen on any ground."""
    top, left, bottom, right = box
    for thickness, colour in ((2.2 * width, "black"), (width, "white")):
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=thickness, edgecolor=colour)
        )


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


def encode_figure(figure: Figure, form: str = "png", dpi: float = DPI) -> bytes:
    """A figure as the bytes of a file; `form` is one of `FORMATS`. Equal figures give equal bytes."""
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "visattn", "savefig.bbox": None}):  # a cropped figure would be resampled
        figure.savefig(stream, format=form, dpi=dpi, metadata=undated, facecolor="white")
    return stream.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float = DPI) -> None:
    """Write a figure, whole or not at all, in the format that the suffix of `path` names.

    Args:
        figure: what `caption_sheet` or `classification_sheet` returned.
        path: ends in .png, .svg or .pdf; its folder exists.
        dpi: pixels to the inch; at the default, panels are shown pixel by pixel.

    Raises:
        InputError: for another suffix.
        OSError: where the folder cannot be written.
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"a sheet cannot be saved as '{path}': its name must end in one of {known}")
    write_bytes(path, encode_figure(figure, form, dpi))
