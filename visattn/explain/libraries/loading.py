"""Loading of models of other libraries: the steps that all of them share."""

import functools
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models import load_state_dict
from torch import nn

from visattn.errors import InputError, install
from visattn.explain.fitting import Fitting
from visattn.explain.layered import as_read
from visattn.explain.subject import Subject
from visattn.explain.texts import Texts, compared
from visattn.explain.vit import ViT
from visattn.models.normalise import Normalise

MAX_SIDE = 4096  # pixels of an input's side, and …
MAX_CELLS = 16_384  # … patches of it: attention of a layer has the square of that many weights for each head


def installed(module: str, extra: str) -> Any:
    """An optional library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed ({short(error)}): {install(extra)}") from error


@contextmanager
def asked_once() -> Iterator[None]:
    """Where the hub cannot be reached, take what is cached; its library asks six times otherwise, in half a minute."""
    try:
        from huggingface_hub import constants, get_session
    except ImportError:
        yield
        return
    offline = constants.HF_HUB_OFFLINE
    try:
        if not offline:
            try:
                get_session().head(constants.ENDPOINT, timeout=10)
            except Exception:  # those of its HTTP library, which versions change; any answer is none of them
                constants.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def short(error: Exception) -> str:
    """An error of another library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def checked_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """The (h, w) of an input, or of the side of a square.

    Raises:
        InputError: if it is no size, or too large.
    """
    if size is None:
        return None
    sides = (size,) * 2 if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(n, int) and 1 <= n <= MAX_SIDE for n in sides):
        raise InputError(f"the image size is {sides}; height and width must be 1 to {MAX_SIDE} pixels")
    return sides[0], sides[1]


def subject(
    model: nn.Module,
    name: str,
    fitting: Fitting,
    mean_std: tuple[Sequence[float], Sequence[float]],
    class_names: Sequence[str] | None,
    own_names: Callable[[], Sequence[str]],
    encode: Callable[[list[str]], Texts] | None = None,
) -> Subject:
    """A model with its preprocessing.

    Args:
        model: in evaluation mode.
        name: for messages.
        fitting: of pictures to its input.
        mean_std: of pixels in [0, 1].
        class_names: as given by the user; None takes the model's own.
        own_names: the model's own, where it has classes.
        encode: texts that images are compared with, if the model does that.

    Raises:
        InputError: if it cannot be read, takes other than colour images, or the names are not as many as the
            classes.
    """
    size = fitting.size
    vit = as_read(model, name, size)
    cells = math.prod(vit.grid(size))
    if cells > MAX_CELLS:
        raise InputError(f"an input of {size[1]}×{size[0]} pixels has {cells:,} patches, more than {MAX_CELLS:,}")
    if vit.channels not in (None, 3):
        raise InputError(f"{name} takes images with {vit.channels} channels, but images have 3; leave out in_chans")
    if class_names is None:
        class_names = own_names() if vit.classes else []
    if len(class_names) != vit.classes:
        raise InputError(f"{len(class_names)} class names were given, but {name} has {vit.classes} classes")
    compare = None if encode is None else functools.partial(_compare, vit, encode)
    return Subject(vit, Normalise(*mean_std), fitting.at(vit.cells(size)), list(class_names), compare=compare)


def _compare(vit: ViT, encode: Callable[[list[str]], Texts], texts: list[str]) -> tuple[ViT, Texts]:
    encoded = encode(texts)
    return compared(vit, encoded), encoded


def weights_file(weights: str | Path) -> Path:
    """The file of weights; raises an `InputError` if there is none."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; give 'pretrained', 'random' or a file")
    return path


def state_of(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file of any kind that timm reads.

    Raises:
        InputError: if there is no such file, or it holds none.
    """
    path = weights_file(path)
    try:
        return load_state_dict(str(path))
    except Exception as error:  # whatever reading a file of another kind trips over
        raise InputError(f"{path} does not hold weights of {name}: {short(error)}") from error
