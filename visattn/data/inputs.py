"""Images as model inputs: tensors, and their geometry."""

from collections.abc import Callable, Iterable, Iterator
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


def read_fitted(paths: Iterable[Path], fit: Fitting) -> Iterator[Input]:
    """The images in these files and folders, read lazily, and fitted by `fit`.

    Raises:
        InputError: if a path is missing or has no images, before the first is read; or if an image cannot be read.
    """
    files = list_images(paths)
    for path, name in zip(files, safe_names(path.stem for path in files), strict=True):
        image = load_image(path)
        yield Input(path, name, np.asarray(image), *to_input(image, fit, str(path)))
