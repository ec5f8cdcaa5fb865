"""A trained model back from its file, checked."""

import pickle
from pathlib import Path
from typing import TypeVar

import torch
from lightning import LightningModule

from visattn.errors import InputError

Model = TypeVar("Model", bound=LightningModule)


def load_model(path: Path | str, kind: type[Model]) -> Model:
    """The model in a checkpoint of `visattn fit`, in evaluation mode, on the CPU.

    Only tensors and plain values are read from the file, never code.

    Args:
        path: the checkpoint.
        kind: what it should hold, `Captioner` or `Classifier`.

    Raises:
        InputError: where the file is not there, is damaged, is no checkpoint, or holds a model of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}; train one with 'visattn fit', it names the file that it wrote"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path} ({path.stat().st_size} bytes) is damaged, or is no checkpoint of visattn") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "hyper_parameters" not in checkpoint:
        raise InputError(f"{path} is no checkpoint of visattn: it lacks the model's configuration")
    found = checkpoint["hyper_parameters"].get("_class_path", "a model that was not trained through 'visattn fit'")
    expected = f"{kind.__module__}.{kind.__qualname__}"
    if found not in (expected, f"visattn.{kind.__qualname__}"):
        raise InputError(f"{path} holds {found}, but a checkpoint of {expected} is needed here")
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
