"""Pictures that the page offers to begin with: drawn here, generated, or a photograph in the public domain."""

import io
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from visattn.data.shapes import make_scene
from visattn.images.reading import load_image

SIDE = 256  # of a drawn picture, in pixels
_FINE = 4  # drawn larger, then averaged
_PHOTOGRAPH = 384  # longest side of a photograph in the page
_QUALITY = 88  # of its JPEG

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Sample(NamedTuple):
    """A picture to begin with.

    Attributes:
        name: of the picture.
        content: the bytes of a PNG or JPEG file.
        credit: where it comes from.
    """

    name: str
    content: bytes
    credit: str

    @property
    def picture(self) -> Image.Image:
        """Its pixels, RGB."""
        return Image.open(io.BytesIO(self.content)).convert("RGB")


class _Sketch:
    """A drawing in the unit square, x to the right and y down, above a sky and a ground that get lighter or darker."""

    def __init__(self, sky: tuple[Colour, Colour], ground: tuple[Colour, Colour], horizon: float) -> None:
        side = SIDE * _FINE
        y = (np.arange(side) / side)[:, None]
        parts = [_fade(*sky, y / horizon), _fade(*ground, (y - horizon) / max(1 - horizon, 1e-9))]
        rows = np.where(y < horizon, *parts)
        self.image = Image.fromarray(np.repeat(rows[:, None], side, axis=1).round().astype(np.uint8))
        self._pen = ImageDraw.Draw(self.image)

    def polygon(self, colour: Colour, *corners: Point) -> None:
        self._pen.polygon([(x * SIDE * _FINE, y * SIDE * _FINE) for x, y in corners], fill=colour)

    def ellipse(self, colour: Colour, centre: Point, radii: Point) -> None:
        (x, y), (a, b) = centre, radii
        self._pen.ellipse([v * SIDE * _FINE for v in (x - a, y - b, x + a, y + b)], fill=colour)

    def slab(self, colour: Colour, box: tuple[float, float, float, float], radius: float) -> None:
        """A rectangle (left, top, right, bottom) with round corners."""
        self._pen.rounded_rectangle([v * SIDE * _FINE for v in box], radius * SIDE * _FINE, fill=colour)

    def picture(self) -> Image.Image:
        return self.image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _fade(first: Colour, last: Colour, share: np.ndarray) -> np.ndarray:
    share = share.clip(0, 1)
    return np.array(first) * (1 - share) + np.array(last) * share


def _automobile() -> Image.Image:
    sketch = _Sketch(((170, 190, 205), (205, 215, 218)), ((105, 103, 106), (78, 76, 82)), 0.55)
    sketch.polygon((178, 24, 30), (0.29, 0.43), (0.39, 0.27), (0.67, 0.27), (0.78, 0.43))
    sketch.polygon((62, 76, 92), (0.335, 0.425), (0.41, 0.30), (0.52, 0.30), (0.52, 0.425))
    sketch.polygon((62, 76, 92), (0.545, 0.425), (0.545, 0.30), (0.655, 0.30), (0.73, 0.425))
    sketch.slab((202, 30, 36), (0.13, 0.42, 0.90, 0.64), 0.06)
    sketch.slab((253, 240, 186), (0.845, 0.48, 0.90, 0.525), 0.01)
    for x in (0.30, 0.73):
        sketch.ellipse((26, 26, 28), (x, 0.64), (0.09, 0.09))
        sketch.ellipse((168, 168, 174), (x, 0.64), (0.043, 0.043))
    return sketch.picture()


def _airplane() -> Image.Image:
    sketch = _Sketch(((96, 150, 214), (176, 208, 238)), ((176, 208, 238), (176, 208, 238)), 1.0)
    white, shade = (240, 242, 245), (196, 203, 212)
    sketch.polygon(shade, (0.46, 0.50), (0.62, 0.50), (0.50, 0.24), (0.43, 0.24))
    sketch.polygon(shade, (0.14, 0.50), (0.24, 0.50), (0.15, 0.30), (0.09, 0.30))
    sketch.ellipse(white, (0.50, 0.51), (0.40, 0.06))
    sketch.polygon(shade, (0.44, 0.53), (0.64, 0.53), (0.44, 0.80), (0.36, 0.80))
    sketch.polygon(shade, (0.13, 0.52), (0.23, 0.53), (0.13, 0.64), (0.08, 0.64))
    for n in range(8):
        sketch.ellipse((70, 84, 108), (0.34 + 0.05 * n, 0.50), (0.011, 0.014))
    return sketch.picture()


def _ship() -> Image.Image:
    sketch = _Sketch(((150, 188, 222), (214, 228, 236)), ((52, 104, 150), (30, 66, 108)), 0.60)
    sketch.slab((236, 238, 240), (0.34, 0.38, 0.72, 0.50), 0.01)
    sketch.slab((222, 226, 230), (0.42, 0.29, 0.62, 0.39), 0.01)
    sketch.slab((196, 62, 48), (0.47, 0.17, 0.54, 0.30), 0.008)
    for n in range(6):
        sketch.slab((72, 92, 116), (0.375 + 0.055 * n, 0.42, 0.405 + 0.055 * n, 0.45), 0.004)
    sketch.polygon((44, 50, 62), (0.10, 0.47), (0.92, 0.47), (0.82, 0.68), (0.20, 0.68))
    sketch.polygon((150, 46, 42), (0.175, 0.63), (0.845, 0.63), (0.82, 0.68), (0.20, 0.68))
    return sketch.picture()


_DRAWN: dict[str, Callable[[], Image.Image]] = {
    "automobile": _automobile,
    "airplane": _airplane,
    "ship": _ship,
}


def samples(class_names: Collection[str] = ()) -> list[Sample]:
    """Drawings, a generated scene, and the photograph of Grace Hopper that matplotlib ships, where it does.

    Drawings of one of the classes come first, other drawings last.
    """
    known, unknown = (
        [sample for name, sample in _drawings() if (name in class_names) == whether] for whether in (True, False)
    )
    return [*known, *_pictures(), *unknown]


@cache
def _drawings() -> list[tuple[str, Sample]]:
    """The drawings, with the names of what they show."""
    return [(name, Sample(f"drawn {name}", _encoded(draw()), "drawn by visattn")) for name, draw in _DRAWN.items()]


@cache
def _pictures() -> list[Sample]:
    scene = make_scene(np.random.default_rng(3), 3).picture(SIDE)
    found = [Sample("generated shapes", _encoded(scene), "generated by visattn")]
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if path.is_file():  # some distributions leave sample data out
        credit = "US Navy photograph, public domain, from matplotlib"
        found.append(of_photograph("Grace Hopper", load_image(path), credit))
    return found


def of_photograph(name: str, picture: Image.Image, credit: str = "") -> Sample:
    """A sample of an upright RGB picture, at most 384 pixels on a side."""
    small = picture.copy()
    small.thumbnail((_PHOTOGRAPH, _PHOTOGRAPH), Image.Resampling.LANCZOS)
    return Sample(name, _encoded(small, "jpeg"), credit)


def _encoded(picture: Image.Image, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=kind, optimize=True, **({"quality": _QUALITY} if kind == "jpeg" else {}))
    return stream.getvalue()
