"""Overlay sheets per second: random maps on a generated image, drawn and saved as PNG.

Beside the caption's sheet stands what tutorials do for the same words, in as many pixels: a matplotlib subplot for
each, the map enlarged and laid over the picture.
"""

import io
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from visattn.images import fit_geometry
from visattn.overlay import caption_sheet, classification_sheet, encode_figure, rasterise
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting

PACKAGES = ("matplotlib", "pillow")


class Sizes(NamedTuple):
    """Attributes: of picture, model's input and maps (H, W); words of a caption, and maps of a classifier."""

    image: tuple[int, int] = (480, 640)
    input: tuple[int, int] = (224, 224)
    grid: tuple[int, int] = (14, 14)
    words: int = 10
    maps: int = 4


FULL, QUICK = Sizes(), Sizes((41, 53), (32, 32), (2, 3), words=2, maps=1)


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """One table; nothing here runs on a GPU, or in another precision than float32."""
    rng = np.random.default_rng(0)
    image = picture(rng, sizes.image)
    geometry = fit_geometry(sizes.image, sizes.input)
    maps = rng.dirichlet(np.ones(sizes.grid[0] * sizes.grid[1]), sizes.words).reshape(-1, *sizes.grid)
    words = [f"word{n}" for n in range(sizes.words)]
    of_classes = [(f"layer {n}", weights) for n, weights in enumerate(maps[: sizes.maps])]
    top = [(f"class {n}", 0.5 / 2**n) for n in range(5)]

    def caption() -> Figure:
        return caption_sheet(image, words, maps, geometry)

    def classification() -> Figure:
        return classification_sheet(image, of_classes, geometry, label="class 0", probability=0.5, top=top)

    as_large = rasterise(caption()).shape[:2]

    def of_caption(name: str) -> str:
        return f"{name}, caption of {sizes.words} words"

    runs = {
        of_caption("visattn"): lambda: encode_figure(caption()),
        of_caption("as the tutorials do"): lambda: subplots(image, words, maps, as_large),
        f"visattn, classification with {sizes.maps} maps": lambda: encode_figure(classification()),
    }
    times = setting.time(runs)
    rows = {name: {"sheets/s": times.rate(name, 1)} for name in runs}
    rows[of_caption("as the tutorials do")]["time, in visattn's"] = times.ratio(*reversed(list(runs)[:2]))
    title = f"Sheets of a picture of {sizes.image[1]}×{sizes.image[0]} pixels, saved as PNG"
    return [Table(title, "sheet", {"sheets/s": ".1f", "time, in visattn's": ".1f"}, rows)]


def picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 with soft patches of colour and some noise, as photographs have."""
    patches = Image.fromarray(rng.integers(40, 216, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(patches.resize(size[::-1], Image.Resampling.BICUBIC), dtype=float)
    return np.clip(soft + rng.normal(scale=6, size=soft.shape), 0, 255).astype(np.uint8)


def subplots(image: np.ndarray, words: list[str], maps: np.ndarray, size: tuple[int, int]) -> bytes:
    """The sheet of a caption as tutorials draw it, as PNG: the picture squeezed to a square, a subplot for each word.

    After `visualize_att` of sgrvinod's "a-PyTorch-Tutorial-to-Image-Captioning", but of `size` (H, W) pixels in all.
    """
    side = 14 * 24
    squeezed = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))
    rows = -(-(len(words) + 1) // 5)
    figure = Figure(figsize=(size[1] / 100, size[0] / 100), dpi=100)
    FigureCanvasAgg(figure)
    for t, word in enumerate(["<start>", *words]):
        axes = figure.add_subplot(rows, 5, t + 1)
        axes.text(0, 1, word, color="black", backgroundcolor="white", fontsize=12)
        axes.imshow(squeezed)
        if t:
            alpha = Image.fromarray(maps[t - 1].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
            axes.imshow(np.asarray(alpha), alpha=0.8, cmap="Greys_r")
        axes.axis("off")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
