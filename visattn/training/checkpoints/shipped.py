"""Exported models (`visattn.export.shipped`: included, in folders, on the hub) in the form of checkpoints."""

from pathlib import Path
from typing import Any

import lightning

from visattn.export import ExportedCaptioner, ExportedClassifier
from visattn.export.shipped import load_exported


def checkpoint_of(path: Path | str) -> dict[str, Any]:
    """An exported model in the form of a checkpoint of `visattn fit`, without training state.

    Raises:
        InputError: as `load_exported`.
    """
    exported = load_exported(path)
    described = exported.describe()
    module, options = KINDS[described["kind"]]
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
        },
    }


def _of_captioner(exported: ExportedCaptioner, channels: dict[str, list[float]]) -> dict[str, Any]:
    encoder = exported.parts["encoder"]
    frozen = {"weights": "pretrained", "train_from": None} if exported.encoder_weights == "pretrained" else {}
    return {
        "output_names": exported.vocabulary.words,
        "tokens": exported.vocabulary.tokens.spec,
        "max_length": exported.max_length,
        **({} if exported.search is None else {"search": exported.search}),
        **({"no_repeat": exported.no_repeat} if exported.no_repeat else {}),
        "encoder": {**encoder, "init_args": {**encoder["init_args"], **channels, **frozen}},
        "decoder": exported.parts["decoder"],
    }


def _of_classifier(exported: ExportedClassifier, channels: dict[str, list[float]]) -> dict[str, Any]:
    return {"output_names": exported.class_names, "model": exported.parts["model"], **channels}


KINDS = {
    "classifier": ("visattn.training.classifier.Classifier", _of_classifier),
    "captioner": ("visattn.training.captioner.Captioner", _of_captioner),
    "glimpses": ("visattn.training.glimpses.GlimpseClassifier", _of_classifier),
}
"""The Lightning module of each kind, and the options that it takes."""
