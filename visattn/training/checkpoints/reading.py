"""Reading a checkpoint, with checks before anything in it is used.

Checkpoints may come from untrusted sources. Only tensors and plain values are read from them, regardless of PyTorch's
environment variables, and the classes that they name must belong to this project or have been imported already.
"""

import importlib
import importlib.util
import inspect
import pickle
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

from visattn.errors import InputError
from visattn.export.shipped import SHIPPED, is_exported
from visattn.training.checkpoints.shipped import checkpoint_of

Model = TypeVar("Model", bound=LightningModule)

_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
_OUTPUTS = "output_names"  # its strings are words or class names of the data, never import paths


def read(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU: tensors and plain values.

    Args:
        path: the file, an exported folder, the name of an included model (`SHIPPED`), or a model on the hub,
            `hf:ORG/NAME[@REVISION]`.

    Raises:
        InputError: if it is another address, is missing, is damaged, would run code, or is not a checkpoint.
    """
    if is_exported(path):
        return checkpoint_of(path)
    if re.match(r"\w[\w+.-]+:/", str(path)):  # at least two letters; one is a Windows drive
        raise InputError(f"{path} is a URL; download the checkpoint first")
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}; train one with 'visattn fit', or use an included one: {', '.join(SHIPPED)}"
        )
    damaged = InputError(f"checkpoint {path} is damaged ({path.stat().st_size} bytes), or is not from visattn")
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch does not verify checksums
            if archive.testzip() is not None:
                raise damaged
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise damaged from error
        raise InputError(
            f"{path} is refused: it names {foreign[1]}, and loading it might run code; checkpoints of visattn contain "
            "only tensors and plain values"
        ) from error
    except (  # errors that damaged archives raise in Python and PyTorch; disk failures are not among them
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:
        raise damaged from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of visattn: it has no model configuration")
    return checkpoint


def trained(path: Path | str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """A checkpoint, the class of its model, and the options of that model.

    Raises:
        InputError: as `read`, and if it names a foreign class or function, or an option that the class does not have.
    """
    checkpoint = read(path)
    options = dict(checkpoint["hyper_parameters"])
    found = options.pop("_class_path", "a model that was not trained through 'visattn fit'")
    instantiator = options.pop("_instantiator", _INSTANTIATOR)
    if instantiator != _INSTANTIATOR:
        raise InputError(f"{path} is refused: it needs {instantiator}, which is not part of visattn")
    for name in [found, *_strings(options)]:
        if _foreign(name):
            raise InputError(
                f"{path} is refused: it names {name}, which is not part of visattn; load your own classes with "
                "--import FILE|MODULE, or in Python with visattn.register"
            )
    kind = _resolve(found)
    known = inspect.signature(kind).parameters if isinstance(kind, type) else options
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"{path} was trained with the option {name}={value!r}, which {found} does not have; it is "
                "from another version of visattn"
            )
    return checkpoint, found, options


def load_model(path: Path | str, *kinds: type[Model]) -> Model:
    """The model in a checkpoint of `visattn fit`, in evaluation mode, on the CPU.

    Args:
        path: the checkpoint, or an exported model, as `read` takes it.
        kinds: allowed classes, `Captioner` or `Classifier`.

    Raises:
        InputError: as `trained`, and if the model is of another class, or its weights do not fit its options.
    """
    checkpoint, found, options = trained(path)
    kind = one_of(path, found, *kinds)
    try:
        model = _made(kind, options, {**options, "_class_path": found})
        model.load_state_dict(checkpoint["state_dict"])
        return model.eval()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # jsonargparse and Lightning name many kinds
        said = " ".join(str(error.__cause__ or error).split())[:400]
        raise InputError(f"{path} cannot be used with this version of visattn: {said}") from error


def _made(kind: type[Model], options: dict[str, Any], stored: dict[str, Any]) -> Model:
    """A model with these options, as Lightning's `load_from_checkpoint` makes it.

    The names of its outputs stay out of jsonargparse, which copies a vocabulary of 2,000 words some thousand times.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "module", skip={_OUTPUTS}, instantiate=False, fail_untyped=False)
    given = {name: value for name, value in options.items() if name != _OUTPUTS}
    made = parser.instantiate_classes(parser.parse_object({"module": given})).module
    outputs = {name: list(value) for name, value in options.items() if name == _OUTPUTS}
    with _given_hyperparameters_context(stored, _INSTANTIATOR):
        return kind(**outputs, **made)


def one_of(path: Path | str, found: str, *kinds: type[Model]) -> type[Model]:
    """The class among `kinds` that was found in a checkpoint; an `InputError` where it is none of them."""
    names = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}
    names |= {f"visattn.{kind.__qualname__}": kind for kind in kinds}
    if found not in names:
        expected = " or ".join(list(names)[: len(kinds)])
        raise InputError(f"{path} holds {found}, but a checkpoint of {expected} is needed here")
    return names[found]


def _strings(value: Any) -> Iterator[str]:
    """All strings in the options, but for the vocabulary's."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key != _OUTPUTS:
                yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


def _foreign(name: str) -> bool:
    """Whether a string would be taken for something that can be imported, and is neither ours nor a class in use.

    jsonargparse imports what such a string names, and may call it: a function such as `os.kill` would serve as a
    decoder's constructor.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) or name.startswith("visattn."):
        return False
    top = name.partition(".")[0]
    if top not in sys.modules:
        spec = importlib.util.find_spec(top)
        if spec is None or (spec.origin is None and name.count(".") == 1):  # a file's name, beside a folder of its stem
            return False
    return not isinstance(_resolve(name), type)


def _resolve(name: str) -> Any:
    """What a dotted name stands for, in modules that have been imported already and in visattn; else None."""
    module, _, attribute = name.rpartition(".")
    if module.startswith("visattn") and importlib.util.find_spec("visattn"):
        try:
            importlib.import_module(module)
        except ImportError:
            return None
    return getattr(sys.modules.get(module), attribute, None)
