"""Images as model inputs: tensors, and their geometry."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visattn.errors import InputError
from visattn.files import safe_names
from visattn.images import Fit, Geometry, fit_image
from visattn.images.reading import OddSizeError, list_images, load_image


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (3, h, w) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


Fitting = Callable[[Image.Image], tuple[Image.Image, Geometry]]  # a picture to a model's input image


def fitting(size: tuple[int, int], fit: Fit) -> Fitting:
    """`fit_image` to a size."""
    return functools.partial(fit_image, size=size, fit=fit)


def to_input(image: Image.Image, fit: Fitting, name: str) -> tuple[Tensor, Geometry]:
    """An RGB picture as a model's input (3, h, w) uint8, and how it became that.

    Raises:
        InputError: if it cannot be fitted; the sentence has its `name`.
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
        name: its stem, made safe and unique among those it was listed with; for the files made from it.
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
    return read_fitted(paths, fitting(size, fit))


def read_fitted(paths: Iterable[Path], fit: Fitting) -> Iterator[Input]:
    """The images in these files and folders, one after the other, as `fit` makes them a model's input.

    Raises:
        InputError: if a path is missing or holds no image, before the first is read; or if one cannot be read.
    """
    files = list_images(paths)
    for path, name in zip(files, safe_names(path.stem for path in files), strict=True):
        image = load_image(path)
        yield Input(path, name, np.asarray(image), *to_input(image, fit, str(path)))
