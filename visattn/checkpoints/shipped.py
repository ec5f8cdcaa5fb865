"""Trained models that come with visattn, called by a name where else a checkpoint's path stands.

Each is a folder of `visattn.export` inside the package, in half precision, with a model card.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import lightning

from visattn.export import load_classifier

SHIPPED = {"vit-cifar10": "vit_cifar10"}
"""The folder in `visattn/pretrained` of each name."""


def is_shipped(path: Path | str) -> bool:
    """Whether a path is the name of a model that comes with visattn; a file of that name is what it is."""
    return str(path) in SHIPPED and not Path(path).exists()


def checkpoint_of(name: str) -> dict[str, Any]:
    """A shipped classifier in the layout of a checkpoint of `visattn fit`, as far as it goes without a training.

    Raises:
        InputError: where a file of it is missing or is not the one that was written.
    """
    with as_file(files("visattn") / "pretrained" / SHIPPED[name]) as folder:
        exported = load_classifier(folder)
    described = exported.describe()
    return {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": exported.weights.state_dict(),
        "hyper_parameters": {
            "_class_path": "visattn.classifier.Classifier",
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            "output_names": exported.class_names,
            **{option: described[option] for option in ("image_size", "fit", "mean", "std", "model")},
        },
    }
