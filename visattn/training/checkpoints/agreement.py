"""Differences between a command line and a checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningModule

from visattn.errors import InputError
from visattn.vocabulary import Words, tokens_of


class Difference(NamedTuple):
    """An option that differs between the command line and a checkpoint.

    Attributes:
        option: its name below the model's options, such as "decoder.init_args.hidden".
        stated: the user's value.
        saved: the checkpoint's value; a class name if the classes differ.
    """

    option: str
    stated: Any
    saved: Any


def differences(stated: Mapping[str, Any], saved: Mapping[str, Any]) -> Iterator[Difference]:
    """The options given by the user that contradict a checkpoint.

    Args:
        stated: options in the form of a configuration, without defaults: classes are `class_path` and `init_args`.
        saved: all options of the checkpoint, in the same form.
    """
    for name, value in stated.items():
        other = saved.get(name)
        if not isinstance(value, Mapping) or not isinstance(other, Mapping):
            if _plain(value) != _plain(other):
                yield Difference(name, _shown(value), _shown(other))
        elif value.get("class_path") != other.get("class_path"):
            yield Difference(name, _shown(value), _shown(other))
        else:
            for part in differences(value, other):
                yield part._replace(option=f"{name}.{part.option}")


def require_agreement(path: Path | str, checkpoint: Mapping[str, Any], model: LightningModule, own: str = "") -> None:
    """Check that a checkpoint's weights fit a model, before loading them.

    Args:
        path: path of the checkpoint, for messages.
        checkpoint: its content.
        model: the model, with the vocabulary of the current data.
        own: prefix of parameters and buffers that may differ; by default none may.

    Raises:
        InputError: if the vocabulary or a size differs; the message gives both.
    """
    theirs, ours = checkpoint["hyper_parameters"], model.hparams
    specs = theirs.get("tokens", Words.spec), ours.get("tokens", Words.spec)
    if specs[0] != specs[1]:
        raise InputError(
            f"{path} was trained on {tokens_of(specs[0]).name}, but this data has {tokens_of(specs[1]).name}; give the "
            "data the same --data.tokens"
        )
    _require_words(path, theirs.get("output_names", []), ours["output_names"])
    theirs, ours = checkpoint["state_dict"], model.state_dict()
    for name in sorted({*theirs, *ours}):
        if own and name.startswith(own):
            continue
        shapes = [_shape(state.get(name)) for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{path} has {shapes[0]} for {name}, but this model has {shapes[1]}; give both the same options"
            )


def _require_words(path: Path | str, theirs: Sequence[str], ours: Sequence[str]) -> None:
    if list(theirs) == list(ours):
        return
    pairs = enumerate(zip(theirs, ours, strict=False))
    detail = next((f", number {i} is {a!r} and {b!r}" for i, (a, b) in pairs if a != b), "")
    raise InputError(
        f"{path} was trained with {len(theirs)} words, but this data has {len(ours)}{detail}; "
        "a model can only be used with the vocabulary that it was trained on: give the data the options of that "
        "training, which are in the run's logs/version_0/config.yaml"
    )


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else "nothing"


def _plain(value: object) -> object:
    """A value as read back from a file, without tuples and sets."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _shown(value: object) -> object:
    return value.get("class_path", value) if isinstance(value, Mapping) else value
