"""What is done beside training: throughput, predictions and the exposure report as files."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, Callback

from visattn import processes
from visattn.captioner import Captioner
from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.files import write_text
from visattn.overlay import Exposure, exposure_sheet, save_figure
from visattn.vocabulary import PAD


class Throughput(Callback):
    """Logs `train/images_per_s` and, for captions, `train/tokens_per_s`, over the steps since the last log.

    They are those of all processes together.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._images, self._tokens = time.perf_counter(), 0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: CaptionBatch | ImageBatch, index: int
    ) -> None:
        self._images += len(batch.ids)
        if isinstance(batch, CaptionBatch):
            self._tokens += int((batch.tokens[:, 1:] != PAD).sum())
        if (index + 1) % trainer.log_every_n_steps == 0:
            seconds = (time.perf_counter() - self._since) / trainer.world_size  # the mean of the rates is their sum
            rates = {"train/images_per_s": self._images / seconds}
            if self._tokens:
                rates["train/tokens_per_s"] = self._tokens / seconds
            pl_module.log_dict(rates, sync_dist=True)
            self.on_train_epoch_start(trainer, pl_module)


class PredictionWriter(BasePredictionWriter):
    """Writes what `visattn predict` found to `predictions.json`, a list with an entry for each image, in their order.

    Args:
        directory: where; the command line fills in its `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        super().__init__("epoch")
        self.path = Path(directory) / "predictions.json"

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: list, batch_indices: list
    ) -> None:
        shared = processes.gathered((batch_indices[0], predictions))  # each process's, in batches
        numbered = {
            number: entry
            for batches in shared
            for numbers, entries in zip(*batches, strict=True)
            for number, entry in zip(numbers, entries, strict=True)
        }
        if not trainer.is_global_zero:
            return
        entries = [numbered[number] for number in sorted(numbered)]
        write_text(self.path, json.dumps(entries, ensure_ascii=False, indent=1))
        print(f"{len(entries)} predictions in {self.path}")


class ExposureReport(Callback):
    """Writes what `visattn test` or `validate` found out about a captioner's exposure bias, as numbers and as a figure.

    `exposure_<split>.json` has the scores of free-running captions and of teacher-forced ones, the numbers over all
    tokens, and those by position (see `visattn.metrics.exposure`); `exposure_<split>.png` draws these.

    Args:
        directory: where; the command line fills in its `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        self.directory = Path(directory)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":  # not the validation within a training
            self._write(trainer, pl_module, "val")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        if not isinstance(module, Captioner) or not trainer.is_global_zero:
            return
        scores = {
            name.removeprefix(f"{split}/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{split}/")
        }
        positions = module.exposure.by_position()
        report = {
            "name": self.directory.resolve().name,
            "split": split,
            "regime": module.regime.signature or type(module.regime).__name__,
            "search": type(module.search).__name__,
            "scores": scores,
            "overall": module.exposure.overall(),
            "positions": {name: part.tolist() for name, part in positions._asdict().items()},
        }
        stem = self.directory / f"exposure_{split}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_text(stem.with_suffix(".json"), json.dumps(report, indent=1))
        save_figure(exposure_sheet([exposure_of(report)]), stem.with_suffix(".png"))
        print(f"exposure bias: {stem}.json, {stem}.png")


def exposure_of(report: dict[str, Any]) -> Exposure:
    """What the figure draws of an `exposure_<split>.json`."""
    positions, overall = report["positions"], report["overall"]
    parts = {name: np.array(positions[name], dtype=float) for name in Exposure._fields[2:]}
    note = f"gap {100 * overall['gap']:.1f} points · CIDEr-D {report['scores']['CIDEr-D']:.3f}"
    return Exposure(report["name"], note, **parts)
