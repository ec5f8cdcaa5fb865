"""A trained model back from its file, checked."""

import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import LightningModule

from visattn.errors import InputError

Model = TypeVar("Model", bound=LightningModule)


def load_model(path: Path | str, *kinds: type[Model]) -> Model:
    """The model in a checkpoint of `visattn fit`, in evaluation mode, on the CPU.

    Only tensors and plain values are read from the file, never code.

    Args:
        path: the checkpoint.
        kinds: what it may hold, `Captioner` or `Classifier`.

    Raises:
        InputError: where the file is not there, is damaged, is no checkpoint, or holds a model of another kind.
    """
    _, kind = _read(path, *kinds)
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


def start_from(path: Path | str, model: LightningModule) -> None:
    """Give a model the weights that another training of such a model ended with; optimiser and schedule begin anew.

    The objective may be another, and so may the attention where its parameters are the same, as those of soft and hard
    attention are.

    Args:
        path: a checkpoint of `visattn fit`.
        model: of the same kind, vocabulary and sizes.

    Raises:
        InputError: as `load_model`, and where the vocabulary or a size is another; the sentence has both.
    """
    checkpoint, _ = _read(path, type(model))
    theirs, ours = (parameters["output_names"] for parameters in (checkpoint["hyper_parameters"], model.hparams))
    if theirs != ours:
        different = next((pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), None)
        detail = f", number {theirs.index(different[0])} is {different[0]!r} and {different[1]!r}" if different else ""
        raise InputError(
            f"{path} was trained with {len(theirs)} words, and this data has {len(ours)}{detail}; "
            "a model can only go on with the vocabulary that it has learnt"
        )
    theirs, ours = checkpoint["state_dict"], model.state_dict()
    own = {name for name in {*theirs, *ours} if name.startswith("loss.")}  # such as the baseline of REINFORCE
    for name in sorted({*theirs, *ours} - own):
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{path} has {shapes[0]} for {name}, and this model {shapes[1]}; give both the same options"
            )
    model.load_state_dict({name: value for name, value in theirs.items() if name not in own}, strict=False)
    model.started = True


def _read(path: Path | str, *kinds: type[Model]) -> tuple[dict[str, Any], type[Model]]:
    """The content of a checkpoint that holds a model of one of these kinds, and which."""
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
    names = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}
    names |= {f"visattn.{kind.__qualname__}": kind for kind in kinds}
    if found not in names:
        expected = " or ".join(list(names)[: len(kinds)])
        raise InputError(f"{path} holds {found}, but a checkpoint of {expected} is needed here")
    return checkpoint, names[found]
