"""Attention during training: statistics that show whether it works, and sheets of a fixed set of images."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from visattn.data.captions import CaptionData
from visattn.data.classification import ClassificationData
from visattn.errors import InputError
from visattn.explain import Raw, Rollout, Subject
from visattn.files import safe_name, write_folder, write_text
from visattn.images.reading import load_image
from visattn.metrics import Health, attention_health
from visattn.overlay import caption_sheet, classification_sheet, encode_figure, rasterise
from visattn.training.captioner import Captioner
from visattn.training.classifier import Classifier

log = logging.getLogger(__name__)

_CLASSIFIED = 32  # images for the attention statistics of a classifier


class AttentionHealth(Callback):
    """Logs attention statistics after each validation in training, and warns if maps do not differ.

    For a captioner, the maps are those of all words of the generated captions, and the captioner itself logs the
    numbers; for a classifier, the attention of the class token in the last layer for 32 images spread over the
    validation split, with "change" between images. See `visattn.metrics.health.Health` for the numbers; a captioner
    adds the mean of its gates, β. Each is logged as `val/attention_<name>`, and `attention/health.jsonl` has one line
    per epoch.

    Args:
        directory: folder of the run; by default that of its checkpoints.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory
        self._warned = False
        self._of_classifier: Health | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _in_training(trainer) or not isinstance(pl_module, Classifier):
            return
        images = torch.stack([example.tensor for example in _examples(trainer.datamodule, _CLASSIFIED)])
        with _aside(trainer, pl_module):
            maps = _maps(pl_module.subject(), images, Raw())
        self._of_classifier = attention_health([maps])
        known = self._of_classifier.known()
        del known["doubly_stochastic"]  # meaningless across images
        logged = {f"val/attention_{name}": value for name, value in known.items()}
        pl_module.log_dict(logged, sync_dist=trainer.world_size > 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _in_training(trainer):
            return
        captions = isinstance(pl_module, Captioner)
        health = pl_module.evaluated.health if captions else self._of_classifier
        if health is None:  # all captions are empty
            return
        if health.stuck and not self._warned:
            log.warning(
                "attention hardly changes between one %s and the next: %.1e of its weight moves (%d maps, epoch %d)",
                *("word" if captions else "image", health.change, health.maps, trainer.current_epoch),
            )
        self._warned = health.stuck  # warn once, and again after a change
        numbers = health._asdict()
        if captions:
            numbers["gate"] = pl_module.evaluated.gate
        else:
            del numbers["doubly_stochastic"]
        if trainer.is_global_zero:
            self._write(trainer, numbers)

    def _write(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Append the line of this epoch, and drop later lines, left by a run that was resumed from a checkpoint."""
        path = _folder(trainer, self.directory) / "health.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines = [line for line in lines if json.loads(line)["epoch"] < trainer.current_epoch]
        finite = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
        lines.append(json.dumps({"epoch": trainer.current_epoch, "step": trainer.global_step, **finite}))
        write_text(path, "\n".join(lines) + "\n")


class AttentionSheets(Callback):
    """Draws sheets of a fixed set of validation images every few epochs of a training run.

    They are the sheets of `visattn caption` and `visattn overlay`, on the original pixels, written to
    `attention/epoch_NNN/` and, with TensorBoard's logger, shown there. The images are spread evenly over the
    validation split; the random numbers of the training are not affected.

    Args:
        images: number of images.
        every_n_epochs: 1 draws after the validation of each epoch, 3 after those of epochs 0, 3, 6 and so on.
        directory: folder of the run; by default that of its checkpoints.

    Raises:
        InputError: if a number is less than 1.
    """

    def __init__(self, images: int = 8, every_n_epochs: int = 1, directory: str | None = None) -> None:
        for name, value in (("images", images), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise InputError(f"{name} of AttentionSheets is {value}; it must be at least 1")
        self.images = images
        self.every_n_epochs = every_n_epochs
        self.directory = directory

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _in_training(trainer) or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        examples = _examples(trainer.datamodule, self.images)
        with _aside(trainer, pl_module):
            figures = list(_sheets(pl_module, examples))
        folder = _folder(trainer, self.directory) / f"epoch_{trainer.current_epoch:03d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        names = [f"{n:02d}_{safe_name(example.id)}" for n, example in enumerate(examples)]
        files = ((f"{name}.png", encode_figure(figure)) for name, figure in zip(names, figures, strict=True))
        write_folder(folder, files, own=r"\d{2,}_.+\.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, figure in zip(names, figures, strict=True):
                    logger.experiment.add_image(
                        f"attention/{name}", rasterise(figure), trainer.global_step, dataformats="HWC"
                    )


class _Example(NamedTuple):
    """A validation image, ready for the model and for drawing; see `visattn.data.inputs.Input`."""

    id: str
    original: np.ndarray
    tensor: Tensor
    truth: str | None = None


def _examples(data: LightningDataModule, count: int) -> list[_Example]:
    """`count` images, evenly spread over the validation split; always the same."""
    if isinstance(data, CaptionData):
        split = data.examples("val")
        out = []
        for i in _spread(len(split), count):
            tensor = data.load(split[i])[0]
            path = split[i].path
            original = _pixels(tensor) if path is None else np.asarray(load_image(path))
            out.append(_Example(split[i].id, original, tensor))
        return out
    if isinstance(data, ClassificationData):
        images, labels = data.tensors("val")
        ids = data.ids("val")
        return [
            _Example(ids[i], _pixels(images[i]), images[i], data.class_names[int(labels[i])])
            for i in _spread(len(labels), count)
        ]
    raise InputError(f"AttentionSheets and AttentionHealth do not support {type(data).__name__}; remove them")


def _spread(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def _pixels(tensor: Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).contiguous().numpy()


def _sheets(module: LightningModule, examples: list[_Example]) -> Iterator[Figure]:
    images = torch.stack([example.tensor for example in examples])
    if isinstance(module, Captioner):
        for example, found in zip(examples, module.caption(images), strict=True):
            caption, geometry = found[0], module.input.geometry(example.original.shape[:2])
            yield caption_sheet(
                *(example.original, caption.labels, caption.weights, geometry),
                drawn=caption.places,
                title=caption.text or "(no words)",
            )
    elif isinstance(module, Classifier):
        subject = module.subject()
        methods = {"attention rollout": Rollout(), "last layer, mean of heads": Raw()}
        drawn = {name: _maps(subject, images, method) for name, method in methods.items()}
        for n, (example, row) in enumerate(zip(examples, subject.probabilities(images).cpu().numpy(), strict=True)):
            top = [(module.class_names[i], float(row[i])) for i in np.argsort(-row)[:5]]
            maps = [(name, of_images[n]) for name, of_images in drawn.items()]
            yield classification_sheet(
                *(example.original, maps, module.input.geometry(example.original.shape[:2])),
                label=top[0][0],
                probability=top[0][1],
                top=top,
                truth=example.truth,
                title=example.id,
            )
    else:
        raise InputError(f"AttentionSheets does not support {type(module).__name__}; remove it")


def _maps(subject: Subject, images: Tensor, method: Raw | Rollout) -> np.ndarray:
    """The maps (B, H, W) of images (B, 3, h, w) uint8."""
    return method(subject.vit, subject.normalise(images)).float().cpu().numpy()


@contextmanager
def _aside(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Use the training's precision and a fixed seed, without affecting the training's random states."""
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
        torch.manual_seed(0)
        yield


def _in_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _folder(trainer: Trainer, directory: str | None) -> Path:
    checkpoints = trainer.checkpoint_callback
    return Path(directory or (checkpoints and checkpoints.dirpath) or trainer.default_root_dir) / "attention"
