"""Training throughput."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.vocabulary import PAD


class Throughput(Callback):
    """Logs how fast training is.

    `train/images_per_s` and, for captions, `train/tokens_per_s`, of all processes: over the steps since the last log.
    After each epoch `train/seconds` and `train/processor_s`, clock and processor time of a process, all its threads,
    averaged over processes: of all steps since the run began, also if it was resumed, with loading and without
    validation.
    """

    def __init__(self) -> None:
        self._spent = {"train/seconds": 0.0, "train/processor_s": 0.0}

    def state_dict(self) -> dict[str, float]:
        return dict(self._spent)

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._spent.update(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # not called if a run is resumed within an epoch
        self._count(trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: CaptionBatch | ImageBatch, index: int
    ) -> None:
        now = time.perf_counter(), time.process_time()
        for name, start, end in zip(self._spent, self._mark, now, strict=True):
            self._spent[name] += end - start
        self._mark = now
        self._images += len(batch.ids)
        if isinstance(batch, CaptionBatch):
            self._tokens += int((batch.tokens[:, 1:] != PAD).sum())
        # Lightning writes logs at these steps, which are those of the optimizer: several batches may make one.
        if trainer.global_step % trainer.log_every_n_steps == 0 and trainer.global_step > self._counted:
            seconds = (self._spent["train/seconds"] - self._before) / trainer.world_size  # mean rate = total
            rates = {"train/images_per_s": self._images / seconds}
            if self._tokens:
                rates["train/tokens_per_s"] = self._tokens / seconds
            pl_module.log_dict(rates, sync_dist=True)
            self._count(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log_dict(self._spent, sync_dist=True)

    def _count(self, step: int) -> None:
        """Begin to count what is logged after this step."""
        self._counted = step
        self._before, self._images, self._tokens = self._spent["train/seconds"], 0, 0
