"""Reading of image files in any common format as upright RGB."""

import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from visattn.errors import InputError
from visattn.images.metadata import TURNS, has_metadata, orientation, without_metadata

_AVIF = features.check("avif")  # a Pillow that was built on the machine may lack it
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp", *([".avif"] if _AVIF else [])}
)
# PIL knows forty more, among them PostScript, which it hands to another program: none of them is let in.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *(["AVIF"] if _AVIF else []))
# What stands beside pictures and was never meant as one; of these a folder may hold any number without a word.
_COMPANIONS = frozenset({".json", ".jsonl", ".npz", ".npy", ".csv", ".yaml", ".yml", ".html", ".md", ".xmp", ".aae"})
BACKGROUND = (255, 255, 255)  # under what is transparent: the page on which such pictures are usually seen
MAX_PIXELS = 80_000_000  # a decoded picture of this size takes 240 MB; a small file that claims more may be an attack
MAX_RATIO = 100  # of the longer side to the shorter: beyond it, whatever the fit, a model would see a smear

log = logging.getLogger(__name__)


class OddSizeError(InputError):
    """A picture that is too large, or too long for its height."""


def load_image(path: str | Path) -> Image.Image:
    """A picture as a person sees it.

    Its EXIF orientation is applied, where one can be read; other metadata is passed over, whatever is wrong with it.
    16-bit grey is scaled to 8 bits; what is transparent shows `BACKGROUND`; palettes, grey, CMYK, YCbCr and LAB become
    RGB. Of an animation it is the first frame. Colour profiles are not applied.

    Args:
        path: of the file, of any name; what counts is that its content is in one of `FORMATS`.

    Returns:
        The picture, in mode RGB.

    Raises:
        InputError: if the file is missing, empty, truncated or no picture, has more than `MAX_PIXELS`, or a side
            more than `MAX_RATIO` times the other.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise InputError(f"{path} cannot be read as an image: it is not a file")
        with path.open("rb") as file:
            return _decode(file, str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except (OSError, ValueError) as error:  # of the path; what is in the file is judged further down
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def decode_image(content: bytes, name: str) -> Image.Image:
    """`load_image` of what stands in no file of its own; `name` stands for it in messages."""
    return _decode(io.BytesIO(content), name)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture as `load_image` hands it over, raising what that raises; from its header where it can be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as opened:
                if orientation(opened) == 1:
                    return opened.height, opened.width
    except Exception:  # `load_image` does without metadata, or tells what is wrong
        pass
    image = load_image(path)
    return image.height, image.width


def _decode(source: BinaryIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, our own limits are lower; of odd metadata, no pixel hangs on it
            try:
                return _open(source, name)
            except (InputError, Image.DecompressionBombError):
                raise
            except Exception:
                if (image := _open_bare(source, name)) is None:
                    raise
                return image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise OddSizeError(f"{name} has far more than {MAX_PIXELS:,} pixels; make it smaller first") from error
    # Decoders raise whatever a broken file makes them trip over: OSError, SyntaxError, struct.error, zlib.error …
    except Exception as error:
        why = "its kind is not known" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise InputError(
            f"{name} cannot be read as an image ({why}); it may be damaged or another kind of file"
        ) from error


def _open(source: BinaryIO, name: str, turn: int | None = None) -> Image.Image:
    """An upright RGB picture; `turn` is its orientation where the file no longer says."""
    with Image.open(source, formats=FORMATS) as image:
        _check_size(image.width, image.height, name)
        return _rgb(image, turn)


def _open_bare(source: BinaryIO, name: str) -> Image.Image | None:
    """The same without its metadata, for a file at which PIL has stopped; None if it stops again."""
    source.seek(0)
    if not has_metadata(source.read(16)):
        return None
    source.seek(0)
    if (bare := without_metadata(source.read())) is None:
        return None
    try:
        return _open(io.BytesIO(bare.content), name, bare.orientation)
    except (InputError, Image.DecompressionBombError):
        raise
    except Exception:  # it was not the metadata, and what PIL said first tells more
        return None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise OddSizeError(f"{name} has {width * height:,} pixels, more than {MAX_PIXELS:,}; make it smaller first")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise OddSizeError(
            f"{name} is {width}×{height} pixels: one side is more than {MAX_RATIO} times the other; crop it first"
        )


def _rgb(image: Image.Image, turn: int | None) -> Image.Image:
    image.load()
    turn = orientation(image) if turn is None else turn
    if turn in TURNS:
        image = image.transpose(TURNS[turn])
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, in any of PIL's integer modes, as 8-bit grey: its own conversion would clip it to 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are 32-bit numbers of an unknown range; save it with 8 or 16 bits")
    grey = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if "transparency" in image.info:  # one grey value that stands for nothing
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files that these paths stand for, in this order.

    A file stands for itself, whatever its suffix. A folder stands for the images directly in it, known by their suffix
    and sorted by name; not for those in its subfolders, nor for hidden files. What else a folder holds is counted in
    the log.

    Raises:
        InputError: if a path does not exist, or a folder has no image in it.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _images_in(path)
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image or folder")
    return files


def _images_in(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]
    others = Counter(map(_kind, set(inside) - set(images)))
    if not images:
        there = f"; it holds {_listed(others)}" if others else ""
        raise InputError(f"the folder {folder} has no images ({', '.join(sorted(SUFFIXES))}){there}")
    passed = Counter({kind: count for kind, count in others.items() if kind not in _COMPANIONS})
    if passed:
        log.warning("%s: %d entries are no known images and are left out: %s", folder, passed.total(), _listed(passed))
    return images


def _kind(path: Path) -> str:
    return "folders" if path.is_dir() else path.suffix.lower() or "without a suffix"


def _listed(kinds: Counter[str]) -> str:
    """So many of each kind, the most frequent first."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
