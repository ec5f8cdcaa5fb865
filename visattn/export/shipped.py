"""Trained models that can be given in place of a checkpoint's path: included ones by name, exported folders, the hub.

Each included model is an exported folder inside the package, in half precision, with a model card. A pretrained
encoder's weights are not in it: they come from a package or from timm's hub.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from visattn.decoding import CaptionModel
from visattn.errors import InputError
from visattn.export.description import read_description
from visattn.export.folder import ExportedCaptioner, ExportedClassifier, load_stored
from visattn.export.hub import address_of, fetch, is_hub, named

SHIPPED = ("vit-cifar10", "captioner-shapes", "captioner-flickr8k")
"""Names of the included models; the folder in `visattn/pretrained` has the name with underscores."""


def is_shipped(path: Path | str) -> bool:
    """Whether a path is the name of an included model; an existing file of that name takes precedence."""
    return str(path) in SHIPPED and not Path(path).exists()


def is_exported(path: Path | str) -> bool:
    """Whether a path is an exported model: an included one's name, a folder, or an address of the hub."""
    return is_shipped(path) or is_hub(path) or Path(path).is_dir()


def load_shipped(name: str) -> ExportedCaptioner | ExportedClassifier:
    """An included model.

    Raises:
        InputError: if a file of it is missing or differs from the original.
    """
    with _included(name) as folder:
        return _load(folder)


def description(path: Path | str) -> dict[str, Any]:
    """The `model.json` of the model that `is_exported`, checked.

    Raises:
        InputError: as `visattn.export.description.read_description` and `visattn.export.hub.fetch`.
    """
    with _folder_of(path) as folder:
        return read_description(folder)


def load_exported(path: Path | str) -> ExportedCaptioner | ExportedClassifier:
    """The model that `is_exported`, of any kind, with the weights of its encoder.

    Raises:
        InputError: as `load_captioner` and `visattn.export.hub.fetch`.
    """
    with _folder_of(path) as folder:
        return _load(folder)


@contextmanager
def _folder_of(path: Path | str) -> Iterator[Path]:
    """The model's folder; errors name its address if it is on the hub."""
    if is_shipped(path):
        with _included(str(path)) as folder:
            yield folder
    elif not is_hub(path):
        yield Path(path)
    else:
        address = address_of(path)
        folder = fetch(address)
        with named(folder, address):
            yield folder


def _included(name: str) -> AbstractContextManager[Path]:
    return as_file(files("visattn") / "pretrained" / name.replace("-", "_"))


def _load(folder: Path) -> ExportedCaptioner | ExportedClassifier:
    exported = load_stored(folder)
    if isinstance(exported, ExportedCaptioner) and exported.encoder_weights == "pretrained":
        exported.encoder.load_pretrained()
    return exported


def caption_model(path: Path | str) -> CaptionModel:
    """The captioner in an exported folder or on the hub, or an included one by name, with its decoding options.

    Raises:
        InputError: as `load_exported`; if the model is not a captioner.
    """
    exported = load_exported(path)
    if not isinstance(exported, ExportedCaptioner):
        raise InputError(f"{path} is a {exported.describe()['kind']} model, but a captioner is needed here")
    return exported.model()
