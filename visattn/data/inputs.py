"""Images as model inputs: tensors, and their geometry."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visattn.errors import InputError
from visattn.files import safe_names
from visattn.images import Fit, Geometry, ModelInput
from visattn.images.reading import OddSizeError, list_images, load_image


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as (3, h, w) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


Fitting = Callable[[Image.Image], tuple[Image.Image, Geometry]]  # an image to the model's input image


def to_input(image: Image.Image, fit: Fitting, name: str) -> tuple[Tensor, Geometry]:
    """An RGB image as the model's input (3, h, w) uint8, and its geometry.

    Raises:
        InputError: if it cannot be fitted; the message contains `name`.
    """
    try:
        fitted, geometry = fit(image)
    except InputError as error:
        raise OddSizeError(f"{name}: {error}") from error
    return to_tensor(fitted), geometry


class Input(NamedTuple):
    """An image file, ready for a model and for drawing.

    Attributes:
        path: of the file.
        name: its stem, made safe and unique among the listed files; used for output files.
        original: (H, W, 3) uint8, upright.
        tensor: (3, h, w) uint8, the model's input.
        geometry: from the original to the input.
    """

    path: Path
    name: str
    original: np.ndarray
    tensor: Tensor
    geometry: Geometry


def read_inputs(paths: Iterable[Path], size: tuple[int, int], fit: Fit) -> Iterator[Input]:
    """The images in these files and folders, fitted by `fit_image`; see `read_fitted`."""
    return read_fitted(paths, ModelInput(size, fit).fit_image)


def read_fitted(paths: Iterable[Path], fit: Fitting, bad: list[InputError] | None = None) -> Iterator[Input]:
    """The images in these files and folders, read lazily, and fitted by `fit`.

    Args:
        paths: files and folders.
        fit: fits an image to the model's input.
        bad: takes the errors of images that cannot be read, which are then left out; None raises the first. See
            `require_all`.

    Raises:
        InputError: if a path is missing or has no images, before the first is read; or if an image cannot be read.
    """
    files = list_images(paths)
    for path, name in zip(files, safe_names(path.stem for path in files), strict=True):
        try:
            image = load_image(path)
            found = Input(path, name, np.asarray(image), *to_input(image, fit, str(path)))
        except InputError as error:
            if bad is None:
                raise
            bad.append(error)
        else:
            yield found


def require_all(bad: Sequence[InputError], done: int, output: Path) -> None:
    """Raise an `InputError` if images could not be read, once the results of `done` others are in `output`."""
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        rest = f"; the results of the other {done} are in {output}" if done else ""
        raise InputError(f"{bad[0]}{more}{rest}")
