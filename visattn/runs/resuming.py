"""A run that was killed goes on as if it never had been: `last.ckpt`, the random states in it, and signals.

What a training is made of is in three places: weights, optimiser, schedule and progress, which Lightning saves; the
order and the augmentation of the data, which are functions of (seed, epoch, number) (`visattn.data.loading`); and the
global random states, from which dropout, drawn places and words, and coins come. The last are saved here.
"""

import logging
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from visattn import processes
from visattn.checkpoints import read
from visattn.errors import InputError

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

_STATES = "random_states"  # in a checkpoint: those of each process, in the order of ranks
_PRECISION = "precision"  # that of the training, as Lightning names it


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: after every so many minutes, after every validation and epoch, and at a signal.

    SIGTERM and SIGUSR1 let the step in hand be finished, save once, and end the process with 128 + the signal's number
    (143 and 138 on Linux). The checkpoint before is kept as `previous.ckpt`. Resumed from any of them, a run on a CPU
    of one thread is the uninterrupted one to the last bit, if it has as many processes.

    Args:
        directory: where; the command line fills in its `--output`.
        every_minutes: how long training goes on without a checkpoint; 0 sets no limit.
        every_steps: the same in optimiser steps.

    Raises:
        InputError: where an interval is negative.
    """

    def __init__(self, directory: str = "runs", every_minutes: float = 10.0, every_steps: int = 0) -> None:
        for name, value in (("every_minutes", every_minutes), ("every_steps", every_steps)):
            if value < 0:
                raise InputError(f"{name} is {value}; it must be at least 0, which sets no limit")
        self.directory = Path(directory)
        self.every_minutes, self.every_steps = every_minutes, every_steps
        self._signal = 0
        self._states: list[dict[str, Any]] = []  # to restore
        self._before_validation: dict[str, Any] | None = None  # this process's random states
        self._validation_is_due = False  # whether what is being saved has a validation before it

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._states = checkpoint.get(_STATES, [])
        before = checkpoint.get(_PRECISION, trainer.precision)
        if before != trainer.precision and trainer.state.fn == "fit":
            log.warning("the run goes on in %s, and was trained in %s so far", trainer.precision, before)
        if Path(trainer.ckpt_path).resolve().parent == self.directory.resolve():
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint.get("callbacks", {}):
                    _move(checkpoint["callbacks"][callback.state_key], callback.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._states:  # only now: building the model and the data has drawn from them
            if len(self._states) != trainer.world_size:
                log.warning(
                    "%d processes go on with a run of %d: it will not be what it would have been",
                    trainer.world_size,
                    len(self._states),
                )
            restore_random_state(self._states[trainer.global_rank % len(self._states)])
            self._states = []
        self._signal = signal.SIGTERM if trainer.received_sigterm else 0
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):  # in place of Lightning's, which puts back what was before
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._signal = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():  # half a step's gradients would be lost
            return
        late = bool(self.every_minutes) and time.monotonic() - self._saved_at >= 60 * self.every_minutes
        late = self._agree(trainer, late)
        if self._signal or late or (self.every_steps and trainer.global_step % self.every_steps == 0):
            loop = trainer.fit_loop
            self._save(trainer, validation_is_due=loop.epoch_loop._should_check_val_fx(loop._data_fetcher))
            self._obey(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = random_state(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        # Processes may have different numbers of batches to validate, so several cannot agree before the end.
        if self._signal and trainer.world_size == 1 and _in_training(trainer):
            self._save(trainer, validation_is_due=True)
            self._obey(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = None
        # That of the end of an epoch is saved with the epoch: Lightning chooses the best checkpoint only then.
        if _in_training(trainer) and not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        self._agree(trainer)
        self._obey(trainer)

    def _agree(self, trainer: Trainer, late: bool = False) -> bool:
        """One process's signal is all processes' signal, and one's lateness all processes' lateness; the latter."""
        if trainer.world_size > 1:
            mine = torch.tensor([self._signal, late], device=trainer.strategy.root_device)
            self._signal, late = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        return bool(late)

    def _save(self, trainer: Trainer, validation_is_due: bool = False) -> None:
        if trainer.fast_dev_run:
            return
        self._validation_is_due = validation_is_due
        try:
            trainer.save_checkpoint(
                self.directory / LAST, weights_only=False, storage_options=self.directory / PREVIOUS
            )
        finally:
            self._validation_is_due = False
        self._saved_at = time.monotonic()

    def _obey(self, trainer: Trainer) -> None:
        if self._signal:
            if trainer.is_global_zero:
                name, path = signal.Signals(self._signal).name, self.directory / LAST
                log.warning("%s: stopped after step %d; go on with --ckpt_path %s", name, trainer.global_step, path)
            raise SystemExit(128 + self._signal)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        own = self._before_validation if self._validation_is_due and self._before_validation else random_state(trainer)
        checkpoint[_STATES] = processes.gathered(own)
        checkpoint[_PRECISION] = trainer.precision
        if self._validation_is_due:
            _put_validation_first(checkpoint["loops"]["fit_loop"])


def _move(state: dict[str, Any], folder: str) -> None:
    """Have Lightning remember the best checkpoint of a run whose folder was moved, and not write over it."""
    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = state[name] and str(Path(folder) / Path(state[name]).name)
    state["best_k_models"] = {str(Path(folder) / Path(p).name): score for p, score in state["best_k_models"].items()}


def _in_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _put_validation_first(loops: dict[str, Any]) -> None:
    """Have Lightning begin a resumed run with the validation that was due.

    From a checkpoint after the last step before a validation, Lightning 2.6 goes on behind that validation. But one
    that stopped at a validation's first batch it begins anew, so that is what the loops' progress is made to say.
    """
    steps, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    for part in ("total", "current"):
        steps[part]["completed"] = steps[part]["processed"]
    validation["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["current"] = dict.fromkeys(validation["total"], 0)
    validation["is_last_batch"] = False


def random_state(trainer: Trainer) -> dict[str, Any]:
    """The global random states of Python, NumPy, PyTorch and this process's GPU, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    device = trainer.strategy.root_device
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` has found."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def latest(folder: Path) -> Path | None:
    """The checkpoint in a run's folder to go on from: the last that is whole; None where there is none at all.

    A damaged one is set aside as `damaged.ckpt`, with a warning.

    Raises:
        InputError: where there are checkpoints, and all are damaged.
    """
    damaged = []
    for name in (LAST, PREVIOUS, BEST):
        path = folder / name
        if path.exists():
            try:
                read(path)
            except InputError as error:
                damaged.append(path)
                log.warning("%s; going back to the checkpoint before", error)
                continue
            if damaged and damaged[0].name == LAST:  # else the next save would call it the previous one
                damaged[0].replace(folder / "damaged.ckpt")
            return path
    if damaged:
        names = ", ".join(str(path) for path in damaged)
        raise InputError(f"all checkpoints of the run are damaged: {names}; move them away to begin anew")
    return None
