"""Reading image files of any common format as upright RGB."""

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

_AVIF = features.check("avif")  # Pillow built from source may lack it
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp", *([".avif"] if _AVIF else [])}
)
# Others are refused; for PostScript, for example, PIL would run an external program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *(["AVIF"] if _AVIF else []))
# Files commonly stored next to images; skipped without a warning.
_COMPANIONS = frozenset({".json", ".jsonl", ".npz", ".npy", ".csv", ".yaml", ".yml", ".html", ".md", ".xmp", ".aae"})
BACKGROUND = (255, 255, 255)  # behind transparent pixels
MAX_PIXELS = 80_000_000  # 240 MB when decoded; a small file that claims more may be a decompression bomb
MAX_RATIO = 100  # of the longer side to the shorter; nothing would be recognisable after resizing

log = logging.getLogger(__name__)


class OddSizeError(InputError):
    """An image with too many pixels, or too extreme an aspect ratio."""


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as upright RGB.

    EXIF orientation is applied if it can be read; other metadata is ignored, even if damaged. 16-bit grey is scaled to
    8 bits; transparent pixels show `BACKGROUND`; palette, grey, CMYK, YCbCr and LAB images are converted to RGB. Of an
    animation the first frame is read. Colour profiles are not applied.

    Args:
        path: of the file; its content must be in one of `FORMATS`, whatever its suffix.

    Returns:
        The image, in mode RGB.

    Raises:
        InputError: if the file is missing, empty, truncated or not an image, has more than `MAX_PIXELS`, or has one
            side more than `MAX_RATIO` times the other.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise InputError(f"{path} cannot be read as an image: it is not a file")
        with path.open("rb") as file:
            return _decode(file, str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except (OSError, ValueError) as error:  # of the path; errors in the content are handled in `_decode`
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def decode_image(content: bytes, name: str) -> Image.Image:
    """`load_image` from bytes; error messages use `name`."""
    return _decode(io.BytesIO(content), name)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of the image that `load_image` returns, from the header if possible; raises the same errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as opened:
                if orientation(opened) == 1:
                    _check_size(opened.width, opened.height, str(path))
                    return opened.height, opened.width
    except InputError:
        raise
    except Exception:  # `load_image` tolerates broken metadata, or raises
        pass
    image = load_image(path)
    return image.height, image.width


def _decode(source: BinaryIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes have lower limits here; metadata does not matter
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
    # Decoders raise many kinds of errors for broken files: OSError, SyntaxError, struct.error, zlib.error …
    except Exception as error:
        why = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise InputError(
            f"{name} cannot be read as an image ({why}); it may be damaged or another kind of file"
        ) from error


def _open(source: BinaryIO, name: str, turn: int | None = None) -> Image.Image:
    """Read upright RGB; `turn` is the orientation if the file's metadata has been removed."""
    with Image.open(source, formats=FORMATS) as image:
        _check_size(image.width, image.height, name)
        return _rgb(image, turn)


def _open_bare(source: BinaryIO, name: str) -> Image.Image | None:
    """`_open` without metadata, after PIL has failed; None if it fails again."""
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
    except Exception:  # not caused by metadata; the first error is more useful
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
    # Pillow inverts TIFFs of 8 bits whose 0 is white (tag 262), but not those of 16.
    negative = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
    if turn in TURNS:
        image = image.transpose(TURNS[turn])
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _eight_bits(image, negative)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, negative: bool) -> Image.Image:
    """Convert 16-bit grey, in any of PIL's integer modes, to 8 bits; PIL's conversion would clip at 255.

    In a negative 0 is white.
    """
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are 32-bit numbers of an unknown range; save it with 8 or 16 bits")
    grey = Image.fromarray(np.round((65535 - values if negative else values) / 257).astype(np.uint8))
    if "transparency" in image.info:  # one transparent grey value
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files at these paths, in order: files, and the images directly in folders.

    A named file is returned whatever its suffix. In a folder, images are recognised by their suffix and sorted by name;
    subfolders and hidden files are ignored, and other files are counted in the log.

    Raises:
        InputError: if a path does not exist, or a folder has no images.
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
        there = f"; it contains {_listed(others)}" if others else ""
        raise InputError(f"the folder {folder} has no images ({', '.join(sorted(SUFFIXES))}){there}")
    passed = Counter({kind: count for kind, count in others.items() if kind not in _COMPANIONS})
    if passed:
        log.warning("%s: skipped %d entries that are not images: %s", folder, passed.total(), _listed(passed))
    return images


def _kind(path: Path) -> str:
    return "folders" if path.is_dir() else path.suffix.lower() or "without a suffix"


def _listed(kinds: Counter[str]) -> str:
    """Counts by kind, the most frequent first."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
