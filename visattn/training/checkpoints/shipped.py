"""Included trained models, which can be given by name instead of a checkpoint's path.

Each is a folder of `visattn.export` inside the package, in half precision, with a model card. A pretrained encoder's
weights are not in it: they come from a package or from timm's hub.
"""

from collections.abc import Mapping
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning

from visattn.export import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier


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


def checkpoint_of(name: str) -> dict[str, Any]:
    """An included model in the form of a checkpoint of `visattn fit`, without training state.

    Raises:
        InputError: if a file of it is missing or differs from the original.
    """
    shipped = SHIPPED[name]
    with as_file(files("visattn") / "pretrained" / name.replace("-", "_")) as folder:
        load = {"captioner": partial(load_captioner, pretrained=True), "classifier": load_classifier}[shipped.kind]
        exported = load(folder)
    module, options = KINDS[shipped.kind]
    described = exported.describe()
    return {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": exported.whole.state_dict(),
        "hyper_parameters": {
            "_class_path": module,
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            **{option: described[option] for option in ("image_size", "fit")},
            **options(exported, {channel: described[channel] for channel in ("mean", "std")}),
            **shipped.decoding,
        },
    }


def _of_captioner(exported: ExportedCaptioner, channels: dict[str, list[float]]) -> dict[str, Any]:
    encoder = exported.parts["encoder"]
    frozen = {"weights": "pretrained", "train_from": None} if exported.encoder_weights == "pretrained" else {}
    return {
        "output_names": exported.vocabulary.words,
        "tokens": exported.vocabulary.tokens.spec,
        "max_length": exported.max_length,
        "encoder": {**encoder, "init_args": {**encoder["init_args"], **channels, **frozen}},
        "decoder": exported.parts["decoder"],
    }


def _of_classifier(exported: ExportedClassifier, channels: dict[str, list[float]]) -> dict[str, Any]:
    return {"output_names": exported.class_names, "model": exported.parts["model"], **channels}


KINDS = {
    "classifier": ("visattn.training.classifier.Classifier", _of_classifier),
    "captioner": ("visattn.training.captioner.Captioner", _of_captioner),
}
"""The Lightning module of each kind, and the options that it takes."""
