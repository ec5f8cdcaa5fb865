"""Pictures from files: whatever a camera or a painter wrote, upright RGB comes out."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from visattn.errors import InputError
from visattn.geometry import Fit, Geometry, fit_image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
BACKGROUND = (255, 255, 255)  # under what is transparent: the page on which such pictures are usually seen
MAX_PIXELS = 80_000_000  # a decoded picture of this size takes 240 MB; a small file that claims more may be an attack


def load_image(path: str | Path) -> Image.Image:
    """A picture as a person sees it.

    Its EXIF orientation is applied; 16-bit grey is scaled to 8 bits; what is transparent shows `BACKGROUND`; palettes,
    grey and CMYK become RGB. Of an animation it is the first frame.

    Args:
        path: of the file.

    Returns:
        The picture, in mode RGB.

    Raises:
        InputError: where the file is missing, empty, truncated or no picture, or has more than `MAX_PIXELS`.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path) as image:
                pixels = image.width * image.height
                return _rgb(image) if pixels <= MAX_PIXELS else _refuse(path, pixels)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has far more than {MAX_PIXELS:,} pixels; make it smaller first") from error
    # Decoders raise whatever a broken file makes them trip over: OSError, SyntaxError, struct.error, zlib.error …
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as an image ({error}); is it damaged or another kind of file?"
        ) from error


def _refuse(path: Path, pixels: int) -> Image.Image:
    raise InputError(f"{path} has {pixels:,} pixels, more than {MAX_PIXELS:,}; make it smaller first")


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits in PIL's integer modes; its own conversion would clip them to 255
        values = np.clip(np.asarray(image), 0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that these paths stand for, in this order.

    A file stands for itself, whatever its suffix. A folder stands for the images directly in it, known by their suffix
    and sorted by name; not for those in its subfolders, nor for hidden files.

    Raises:
        InputError: where a path does not exist, or a folder has no image in it.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(
                f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()
            )
            if not inside:
                raise InputError(f"the folder {path} has no image in it ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image or folder")
    return files


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (3, h, w) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class Input(NamedTuple):
    """An image file, ready for a model and for drawing.

    Attributes:
        path: of the file.
        name: its stem, made unique among those it was listed with; for the files made from it.
        original: (H, W, 3) uint8, upright.
        tensor: (3, h, w) uint8, what the model sees.
        geometry: how the one became the other.
    """

    path: Path
    name: str
    original: np.ndarray
    tensor: Tensor
    geometry: Geometry


def read_inputs(paths: Iterable[Path], size: tuple[int, int], fit: Fit) -> Iterator[Input]:
    """The images in these files and folders, as `fit_image` fits them; otherwise `read_fitted`."""
    return read_fitted(paths, functools.partial(fit_image, size=size, fit=fit))


def read_fitted(paths: Iterable[Path], fit: Callable[[Image.Image], tuple[Image.Image, Geometry]]) -> Iterator[Input]:
    """The images in these files and folders, one after the other, as `fit` makes them a model's input.

    Raises:
        InputError: where a path is missing or holds no image, before the first is read; or where one cannot be read.
    """
    seen: dict[str, int] = {}
    for path in list_images(paths):
        seen[path.stem] = seen.get(path.stem, 0) + 1
        name = path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}"
        image = load_image(path)
        try:
            fitted, geometry = fit(image)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        yield Input(path, name, np.asarray(image), to_tensor(fitted), geometry)
