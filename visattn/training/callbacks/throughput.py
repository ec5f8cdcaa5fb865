"""Training throughput."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.vocabulary import PAD


class Throughput(Callback):
    """Logs `train/images_per_s` and, for captions, `train/tokens_per_s`, over the steps since the last log.

    They include all processes.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # not called if a run is resumed within an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._images, self._tokens = time.perf_counter(), 0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: CaptionBatch | ImageBatch, index: int
    ) -> None:
        self._images += len(batch.ids)
        if isinstance(batch, CaptionBatch):
            self._tokens += int((batch.tokens[:, 1:] != PAD).sum())
        if (index + 1) % trainer.log_every_n_steps == 0:
            seconds = (time.perf_counter() - self._since) / trainer.world_size  # mean rate = total
            rates = {"train/images_per_s": self._images / seconds}
            if self._tokens:
                rates["train/tokens_per_s"] = self._tokens / seconds
            pl_module.log_dict(rates, sync_dist=True)
            self.on_train_epoch_start(trainer, pl_module)
