"""Attention during training: statistics that show whether it works, and sheets of a fixed set of images."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from visattn.errors import InputError, require_number
from visattn.explain import Raw, Rollout
from visattn.explain.methods import methods_of
from visattn.files import safe_name, write_folder, write_text
from visattn.metrics import Health, attention_health
from visattn.models.mode import evaluating
from visattn.overlay import Style, caption_sheet, classification_sheet, encode_figure, rasterise
from visattn.training.callbacks.validation_images import Classified, Example, OfValidation, examples_of, in_training
from visattn.training.captioner import Captioner
from visattn.training.glimpses import GlimpseClassifier

log = logging.getLogger(__name__)

_CLASSIFIED = 32  # images for the attention statistics of a classifier


class AttentionHealth(OfValidation):
    """Logs attention statistics after each validation in training, and warns if maps do not differ.

    For a captioner, the maps are those of all words of the generated captions, and the captioner itself logs the
    numbers; for a classifier, the attention of the class token in the last layer for 32 images spread over the
    validation split, with "change" between images; for any other LightningModule that contains a Vision Transformer,
    the same of the first 32 images of the validation. See `visattn.metrics.health.Health` for the numbers; a captioner
    adds the mean of its gates, β. Each is logged as `val/attention_<name>`, and `attention/health.jsonl` has one line
    per epoch.

    Args:
        directory: folder of the run; by default that of its checkpoints.
        network: name of the Vision Transformer in a LightningModule of your own; None is its first part that can be
            read (`visattn.explain.as_read`).

    Raises:
        InputError: in training, if the module has no part `network`. Without that option nothing is logged for a module
            in which no Vision Transformer is found.
    """

    def __init__(self, directory: str | None = None, network: str | None = None) -> None:
        super().__init__(_CLASSIFIED, network)
        self.directory = directory
        self._warned = False
        self._of_classifier: Health | None = None
        self._absent = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._absent:
            return
        try:
            super().on_validation_start(trainer, pl_module)
        except InputError:
            if self.network is not None:
                raise
            self._absent = True  # every run of `visattn fit` has this callback, also of modules without attention

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not in_training(trainer) or isinstance(pl_module, Captioner):
            return
        found = self.classified(trainer, pl_module, None, None)
        if found is None:
            return
        with _aside(trainer, pl_module):
            maps = _maps(found, Raw())
        self._of_classifier = attention_health([maps])
        known = self._of_classifier.known()
        del known["doubly_stochastic"]  # meaningless across images
        logged = {f"val/attention_{name}": value for name, value in known.items()}
        pl_module.log_dict(logged, sync_dist=trainer.world_size > 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not in_training(trainer):
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


class AttentionSheets(OfValidation):
    """Draws sheets of a fixed set of validation images every few epochs of a training run.

    They are the sheets of `visattn caption` and `visattn overlay`, on the original pixels, written to
    `attention/epoch_NNN/` and, with TensorBoard's logger, shown there. The images are spread evenly over the
    validation split; the random numbers of the training are not affected.

    In any other LightningModule that contains a Vision Transformer, the images are the first of the validation, as the
    transformer gets them.

    Args:
        images: number of images.
        every_n_epochs: 1 draws after the validation of each epoch, 3 after those of epochs 0, 3, 6 and so on.
        directory: folder of the run; by default that of its checkpoints.
        network: name of the Vision Transformer in a LightningModule of your own; None is its first part that can be
            read (`visattn.explain.as_read`).
        mean: of each channel, with which images of such a module were normalised, to undo that in the sheets; None
            stretches the images' range to black and white.
        std: standard deviation of each channel.

    Raises:
        InputError: if a number is less than 1; in training, if the module has no such part.
    """

    def __init__(
        self,
        images: int = 8,
        every_n_epochs: int = 1,
        directory: str | None = None,
        network: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(images, network)
        if (mean is None) != (std is None):
            raise InputError("AttentionSheets needs both mean and std, or neither")
        self.mean, self.std = mean, std
        require_number("images of AttentionSheets", images, least=1)
        require_number("every_n_epochs of AttentionSheets", every_n_epochs, least=1)
        self.every_n_epochs = every_n_epochs
        self.directory = directory

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end()
        if not in_training(trainer) or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        if isinstance(pl_module, Captioner):
            examples = examples_of(trainer.datamodule, self.count)
            with _aside(trainer, pl_module):
                figures = list(_caption_sheets(pl_module, examples))
        elif isinstance(pl_module, GlimpseClassifier):
            raise InputError(f"AttentionSheets does not support {type(pl_module).__name__}; remove it")
        elif found := self.classified(trainer, pl_module, self.mean, self.std):
            examples = found.examples
            with _aside(trainer, pl_module):
                figures = list(_classification_sheets(found))
        else:
            return
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


def _caption_sheets(module: Captioner, examples: list[Example]) -> Iterator[Figure]:
    images = torch.stack([example.tensor for example in examples])
    for example, found in zip(examples, module.caption(images), strict=True):
        caption, geometry = found[0], module.input.geometry(example.original.shape[:2])
        yield caption_sheet(
            *(example.original, caption.labels, caption.weights, geometry),
            probabilities=np.exp(caption.log_probs).tolist(),
            drawn=caption.places,
            title=caption.text or "(no words)",
        )


def _classification_sheets(found: Classified) -> Iterator[Figure]:
    methods = {"attention rollout": Rollout()} if "rollout" in methods_of(found.vit) else {}
    drawn = {name: _maps(found, method) for name, method in {**methods, "last layer, mean of heads": Raw()}.items()}
    with torch.no_grad(), evaluating(found.vit.model):
        probabilities = found.vit.logits(found.inputs).float().softmax(dim=-1).cpu().numpy()
    for n, example in enumerate(found.examples):
        maps = {name: of_images[n] for name, of_images in drawn.items()}
        if not found.class_names:
            seen = (example.original, list(maps), np.stack(list(maps.values())), found.geometries[n])
            yield caption_sheet(*seen, title=example.id, meaning="attention", style=Style("own", end="robust"))
            continue
        top = [(found.class_names[i], float(probabilities[n][i])) for i in np.argsort(-probabilities[n])[:5]]
        yield classification_sheet(
            *(example.original, list(maps.items()), found.geometries[n]),
            label=top[0][0],
            probability=top[0][1],
            top=top,
            truth=example.truth,
            title=example.id,
        )


def _maps(found: Classified, method: Raw | Rollout) -> np.ndarray:
    """The maps (B, H, W)."""
    return method(found.vit, found.inputs).float().cpu().numpy()


@contextmanager
def _aside(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Use the training's precision and a fixed seed, without affecting the training's random states."""
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
        torch.manual_seed(0)
        yield


def _folder(trainer: Trainer, directory: str | None) -> Path:
    checkpoints = trainer.checkpoint_callback
    return Path(directory or (checkpoints and checkpoints.dirpath) or trainer.default_root_dir) / "attention"
