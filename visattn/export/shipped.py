"""Included trained models, which can be given by name instead of a checkpoint's path.

Each is an exported folder inside the package, in half precision, with a model card. A pretrained encoder's weights are
not in it: they come from a package or from timm's hub.
"""

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from visattn.decoding import BeamSearch, CaptionModel
from visattn.errors import InputError
from visattn.export.folder import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier


class Shipped(NamedTuple):
    """An included model.

    Attributes:
        kind: kind of model.
        decoding: the module's decoding options, chosen on the validation split.
    """

    kind: Literal["classifier", "captioner"]
    decoding: Mapping[str, Any] = {}


SHIPPED = {
    "vit-cifar10": Shipped("classifier"),
    "captioner-shapes": Shipped("captioner"),
    "captioner-flickr8k": Shipped(
        "captioner",
        {
            "search": {"class_path": "visattn.decoding.BeamSearch", "init_args": {"size": 5, "length_penalty": 1.0}},
            "no_repeat": 2,
        },
    ),
}
"""By name; the folder in `visattn/pretrained` has the name with underscores."""


def is_shipped(path: Path | str) -> bool:
    """Whether a path is the name of an included model; an existing file of that name takes precedence."""
    return str(path) in SHIPPED and not Path(path).exists()


def load_shipped(name: str) -> ExportedCaptioner | ExportedClassifier:
    """An included model.

    Raises:
        InputError: if a file of it is missing or differs from the original.
    """
    with as_file(files("visattn") / "pretrained" / name.replace("-", "_")) as folder:
        return load_captioner(folder, pretrained=True) if SHIPPED[name].kind == "captioner" else load_classifier(folder)


def caption_model(path: Path | str) -> CaptionModel:
    """The captioner in an exported folder, or an included one by name, with its decoding options.

    Raises:
        InputError: as `load_captioner`; if the included model is not a captioner.
    """
    if not is_shipped(path):
        return load_captioner(path, pretrained=True).model()
    shipped, exported = SHIPPED[str(path)], load_shipped(str(path))
    if not isinstance(exported, ExportedCaptioner):
        raise InputError(f"{path} is a {shipped.kind}, but a captioner is needed here")
    model = exported.model()
    if "search" in shipped.decoding:
        model.search = BeamSearch(**shipped.decoding["search"]["init_args"])
    model.no_repeat = shipped.decoding.get("no_repeat", 0)
    return model
