"""What is done beside training: throughput, and predictions as a file."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, Callback

from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.files import write_text
from visattn.vocabulary import PAD


class Throughput(Callback):
    """Logs `train/images_per_s` and, for captions, `train/tokens_per_s`, over the steps since the last log."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._images, self._tokens = time.perf_counter(), 0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: CaptionBatch | ImageBatch, index: int
    ) -> None:
        self._images += len(batch.ids)
        if isinstance(batch, CaptionBatch):
            self._tokens += int((batch.tokens[:, 1:] != PAD).sum())
        if (index + 1) % trainer.log_every_n_steps == 0:
            seconds = (time.perf_counter() - self._since) / trainer.world_size
            rates = {"train/images_per_s": self._images / seconds}
            if self._tokens:
                rates["train/tokens_per_s"] = self._tokens / seconds
            pl_module.log_dict(rates)
            self.on_train_epoch_start(trainer, pl_module)


class PredictionWriter(BasePredictionWriter):
    """Writes what `visattn predict` found to `predictions.json`, a list with an entry for each image.

    Args:
        directory: where; the command line fills in its `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        super().__init__("epoch")
        self.path = Path(directory) / "predictions.json"

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: list, batch_indices: list
    ) -> None:
        entries = list(itertools.chain.from_iterable(predictions))
        write_text(self.path, json.dumps(entries, ensure_ascii=False, indent=1))
        print(f"{len(entries)} predictions in {self.path}")
