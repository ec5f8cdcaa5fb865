"""Trained models that come with visattn, called by a name where else a checkpoint's path stands.

Each is a folder of `visattn.export` inside the package, in half precision, with a model card.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import lightning

from visattn.export import ExportedCaptioner, ExportedClassifier, load_captioner, load_classifier

SHIPPED = {"vit-cifar10": "classifier", "captioner-shapes": "captioner"}
"""The kind of each, by its name; its folder in `visattn/pretrained` has the name with an underscore."""


def is_shipped(path: Path | str) -> bool:
    """Whether a path is the name of a model that comes with visattn; a file of that name is what it is."""
    return str(path) in SHIPPED and not Path(path).exists()


def checkpoint_of(name: str) -> dict[str, Any]:
    """A shipped model in the layout of a checkpoint of `visattn fit`, as far as it goes without a training.

    Raises:
        InputError: where a file of it is missing or is not the one that was written.
    """
    load, module, options = KINDS[SHIPPED[name]]
    with as_file(files("visattn") / "pretrained" / name.replace("-", "_")) as folder:
        exported = load(folder)
    described = exported.describe()
    return {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": exported.weights.state_dict(),
        "hyper_parameters": {
            "_class_path": module,
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            **{option: described[option] for option in ("image_size", "fit")},
            **options(exported, {channel: described[channel] for channel in ("mean", "std")}),
        },
    }


def _of_captioner(exported: ExportedCaptioner, channels: dict[str, list[float]]) -> dict[str, Any]:
    encoder = exported.parts["encoder"]
    return {
        "output_names": exported.vocabulary.words,
        "tokens": exported.vocabulary.tokens.spec,
        "max_length": exported.max_length,
        "encoder": {**encoder, "init_args": {**encoder["init_args"], **channels}},
        "decoder": exported.parts["decoder"],
    }


def _of_classifier(exported: ExportedClassifier, channels: dict[str, list[float]]) -> dict[str, Any]:
    return {"output_names": exported.class_names, "model": exported.parts["model"], **channels}


KINDS = {
    "classifier": (load_classifier, "visattn.classifier.Classifier", _of_classifier),
    "captioner": (load_captioner, "visattn.captioner.Captioner", _of_captioner),
}
"""What reads the folder of each kind, its Lightning module, and the options that this takes."""
