"""Stop training as soon as a number is not finite, before it reaches the weights or a checkpoint."""

import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from visattn.data.batch import CaptionBatch, ImageBatch
from visattn.errors import InputError


class StopWhenNotFinite(Callback):
    """Stops training at the first loss that is not finite, and before weights that are not finite are saved.

    Lightning alone would continue, and all weights would become NaN. Reading a loss on an accelerator waits for it, so
    there the losses since the last log are read together; it then stops up to `log_every_n_steps` steps late.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._where = ""
        self._unread: list[tuple[Tensor, str, list[str]]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: CaptionBatch | ImageBatch, index: int
    ) -> None:
        self._ids = batch.ids
        self._where = f"step {trainer.global_step + 1} (epoch {trainer.current_epoch}, batch {index})"

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._unread.append((loss.detach(), self._where, self._ids))
        if loss.device.type == "cpu" or len(self._unread) >= trainer.log_every_n_steps:
            self._read()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        losses = torch.stack([loss for loss, *_ in unread]).tolist() if unread else []
        for value, (_, where, ids) in zip(losses, unread, strict=True):
            if not math.isfinite(value):
                raise InputError(
                    f"the loss is {value} in {where}, with the images {', '.join(map(str, ids))}; lower the learning "
                    "rate, or check these images; no checkpoint was written after that"
                )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._read()
        for name, parameter in pl_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise InputError(
                    f"the weights of {name} are not finite after {self._where}, with the images "
                    f"{', '.join(map(str, self._ids))}; lower the learning rate; they were not saved"
                )
