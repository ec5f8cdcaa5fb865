"""Exact resuming of a run: `last.ckpt`, its random states, and signals.

The state of a training run has three parts: weights, optimiser, schedule and progress, which Lightning saves; the order
and the augmentation of the data, which are functions of (seed, epoch, number) (`visattn.data.loading`); and the global
random states, used for dropout and sampling, which are saved here.

An epoch stopped before its last batch is not finished, although Lightning counts it as finished.
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
from torch.optim.lr_scheduler import LambdaLR

from visattn.data.loading import BatchLoader
from visattn.errors import InputError, require_number
from visattn.training import processes
from visattn.training.callbacks.validation_images import in_training
from visattn.training.checkpoints import read

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"

_STATES = "random_states"  # in a checkpoint: those of each process, in the order of ranks
_PRECISION = "precision"  # of the training, by Lightning's name


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt`: at intervals, after every validation and epoch, and when a run is stopped.

    On SIGTERM, SIGUSR1 and SIGINT (Ctrl-C; a second one ends the process at once) it finishes the current step, saves
    once, and ends the process with 128 + the signal's number (143, 138 and 130 on Linux). The current step is also
    finished with `max_steps`, `max_time` and callbacks that stop within an epoch; the rest of the epoch is trained when
    the run continues, as it is after `limit_train_batches` was raised. After an error, a run can be resumed from the
    last checkpoint. The one before is kept as `previous.ckpt`. Resumed from any of them on a CPU with one thread, a run
    is bit-identical to the uninterrupted one, if it has the same number of processes.

    Args:
        directory: folder of the checkpoints; the command line sets it to `--output`.
        every_minutes: maximum time between checkpoints; 0 for no limit.
        every_steps: maximum number of optimiser steps between checkpoints; 0 for no limit.
        every_epochs: epochs between checkpoints at the end of an epoch without a validation.

    Raises:
        InputError: if an interval is negative, or `every_epochs` is 0.
    """

    def __init__(
        self, directory: str = "runs", every_minutes: float = 10.0, every_steps: int = 0, every_epochs: int = 1
    ) -> None:
        for name, value in (("every_minutes", every_minutes), ("every_steps", every_steps)):
            if value < 0:
                raise InputError(f"{name} is {value}; it must be at least 0 (0 for no limit)")
        require_number("every_epochs", every_epochs, least=1)
        self.directory = Path(directory)
        self.every_minutes, self.every_steps, self.every_epochs = every_minutes, every_steps, every_epochs
        self._signal = 0
        self._stop_after_step = False  # requested between the batches of a step
        self._epoch_is_over = False  # in the checkpoint from which the run is resumed
        self._saved_within = False  # whether the run ends within an epoch, and this is in last.ckpt
        self._states: list[dict[str, Any]] = []  # to restore
        self._before_validation: dict[str, Any] | None = None  # this process's random states
        self._validated = False  # since the last checkpoint
        self._validation_is_due = False  # whether a validation must run first when resuming from this checkpoint

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._states = checkpoint.get(_STATES, [])
        before = checkpoint.get(_PRECISION, trainer.precision)
        if before != trainer.precision and trainer.state.fn == "fit":
            log.warning("the run continues in %s, but was trained in %s so far", trainer.precision, before)
        if Path(trainer.ckpt_path).resolve().parent == self.directory.resolve():
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint.get("callbacks", {}):
                    _move(checkpoint["callbacks"][callback.state_key], callback.dirpath)
        if trainer.state.fn == "fit" and "loops" in checkpoint:
            loops = checkpoint["loops"]["fit_loop"]
            _reopen_epoch(trainer, loops)
            self._epoch_is_over = loops["epoch_progress"]["current"]["processed"] > 0 and not _is_open(loops)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._states:  # only now, since building the model and the data uses random numbers
            if len(self._states) != trainer.world_size:
                log.warning(
                    "resuming with %d processes a run of %d: it will differ from the uninterrupted run",
                    trainer.world_size,
                    len(self._states),
                )
            restore_random_state(self._states[trainer.global_rank % len(self._states)])
            self._states = []
            _set_rates(trainer)
        if self._epoch_is_over and trainer.max_steps != -1:
            _begin_epoch(trainer)
        self._epoch_is_over = False
        self._signal = signal.SIGTERM if trainer.received_sigterm else 0
        self._stop_after_step = self._saved_within = False
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM), signal.SIGINT):  # not on Windows
                if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # as set by nohup and shells
                    signal.signal(number, self._note)  # replaces Lightning's handler

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT == self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():  # accumulated gradients would be lost
            self._put_off_stop(trainer)
            return
        if self._stop_after_step:
            trainer.should_stop = True
        due = _validation_is_scheduled(trainer)
        self._saved_within = _ends_within_epoch(trainer) and not due
        late = bool(self.every_minutes) and time.monotonic() - self._saved_at >= 60 * self.every_minutes
        late = self._agree(trainer, late)
        regular = self.every_steps and trainer.global_step % self.every_steps == 0
        if self._signal or late or self._saved_within or regular:
            self._save(trainer, validation_is_due=due)
            self._obey(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = random_state(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        # Processes may have different numbers of validation batches, so they can only agree at the end.
        if self._signal and trainer.world_size == 1 and in_training(trainer) and not _within_step(trainer):
            if not self._saved_within:
                self._save(trainer, validation_is_due=True)
            self._obey(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = None
        # At the end of an epoch, save after the epoch: Lightning chooses the best checkpoint only then.
        self._validated = True
        if not in_training(trainer) or trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            return
        if _within_step(trainer):
            self._put_off_stop(trainer)
        else:
            self.on_train_epoch_end(trainer, pl_module)
            self._saved_within = _ends_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._saved_within and not _within_step(trainer) and self._epoch_is_saved(trainer):
            self._save(trainer)
        self._agree(trainer)
        self._obey(trainer)

    def _epoch_is_saved(self, trainer: Trainer) -> bool:
        """Whether a checkpoint is due at this end of an epoch."""
        done = trainer.current_epoch + 1
        ends = trainer.should_stop or done == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        return bool(self._validated or ends or self._signal or done % self.every_epochs == 0)

    def _put_off_stop(self, trainer: Trainer) -> None:
        """Postpone a stop until all batches of the step are accumulated."""
        self._stop_after_step |= trainer.should_stop
        trainer.should_stop = False

    def _agree(self, trainer: Trainer, late: bool = False) -> bool:
        """Share signals and due checkpoints between all processes; returns whether a checkpoint is due."""
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
        self._validated = False

    def _obey(self, trainer: Trainer) -> None:
        if self._signal:
            if trainer.is_global_zero:
                name, path = signal.Signals(self._signal).name, self.directory / LAST
                log.warning("%s: stopped after step %d; resume with --ckpt_path %s", name, trainer.global_step, path)
            raise SystemExit(128 + self._signal)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        own = self._before_validation if self._validation_is_due and self._before_validation else random_state(trainer)
        checkpoint[_STATES] = processes.gathered(own)
        checkpoint[_PRECISION] = trainer.precision
        if self._validation_is_due:
            _put_validation_first(checkpoint["loops"]["fit_loop"])


def _move(state: dict[str, Any], folder: str) -> None:
    """Update the path of the best checkpoint after a run's folder was moved, so that it is not overwritten."""
    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = state[name] and str(Path(folder) / Path(state[name]).name)
    state["best_k_models"] = {str(Path(folder) / Path(p).name): score for p, score in state["best_k_models"].items()}


def _within_step(trainer: Trainer) -> bool:
    """Whether accumulated gradients have not been used yet."""
    return trainer.fit_loop._should_accumulate() and not trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def _validation_is_scheduled(trainer: Trainer) -> bool:
    """Whether a validation is scheduled after this step (not one caused by stopping)."""
    stop, trainer.should_stop = trainer.should_stop, False
    loop = trainer.fit_loop
    due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    trainer.should_stop = stop
    return due


def _ends_within_epoch(trainer: Trainer) -> bool:
    """Whether training ends with this step before the epoch is complete."""
    loop = trainer.fit_loop
    ends = 0 <= trainer.max_steps <= trainer.global_step or (trainer.should_stop and loop._can_stop_early)
    return ends and not loop.epoch_loop._num_ready_batches_reached()


def _reopen_epoch(trainer: Trainer, loops: dict[str, Any]) -> None:
    """Make Lightning continue within an epoch that it counts as finished, but that has batches left.

    This happens if `limit_train_batches` was lower, or if training was stopped too late for this callback.
    """
    loaders = loops["state_dict"].get("combined_loader", [])
    loader = trainer.datamodule.train_dataloader() if trainer.datamodule is not None else None
    if len(loaders) != 1 or not isinstance(loader, BatchLoader):
        return
    epochs, steps = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    done, limit = steps["current"]["ready"], trainer.limit_train_batches
    batches = min(len(loader), limit) if isinstance(limit, int) else int(len(loader) * limit)
    other = any(loaders[0].get(name, value) != value for name, value in loader.choices().items())
    if other or not 0 < done < batches or _is_open(loops):
        return
    log.info("resuming within epoch %d: %d of %d batches are trained", loaders[0]["epoch"], done, batches)
    for part in ("total", "current"):  # their state after the last of these batches
        epochs[part]["processed"] = epochs[part]["completed"] = epochs[part]["started"] - 1
        steps[part]["completed"] = steps[part]["processed"] - 1
    steps["is_last_batch"] = False
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= done % trainer.accumulate_grad_batches == 0


def _is_open(loops: dict[str, Any]) -> bool:
    """Whether a checkpoint is within an epoch, according to Lightning."""
    epochs = loops["epoch_progress"]["current"]
    return epochs["processed"] < epochs["started"]


def _begin_epoch(trainer: Trainer) -> None:
    """Make Lightning begin the next epoch; with `max_steps`, it would otherwise end the previous one again."""
    loop = trainer.fit_loop
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        part._restarting = False
        part.reset_restart_stage()
    for count in (loop.epoch_progress.total, loop.epoch_progress.current):
        count.completed = count.processed


def _set_rates(trainer: Trainer) -> None:
    """Set the learning rates of the next step; the schedule in the checkpoint may have had another end."""
    for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
        if isinstance(scheduler, LambdaLR):
            rates = zip(scheduler.base_lrs, scheduler.lr_lambdas, scheduler.optimizer.param_groups, strict=True)
            for base, factor, group in rates:
                group["lr"] = base * factor(scheduler.last_epoch)


def _put_validation_first(loops: dict[str, Any]) -> None:
    """Make Lightning begin a resumed run with the validation that was due.

    Resumed from a checkpoint after the last step before a validation, Lightning 2.6 skips that validation. It does
    repeat a validation that was stopped at its first batch, so the progress is set to that state.
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
    """Restore the result of `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def latest(folder: Path, best: str = "best.ckpt") -> Path | None:
    """The checkpoint in a run's folder to continue from: the last intact one, or None if there is none.

    A damaged one is renamed to `damaged.ckpt`, with a warning.

    Args:
        folder: the run's folder.
        best: the file name of its best checkpoint, from which it is continued if no other is intact.

    Raises:
        InputError: if there are checkpoints, and all are damaged.
    """
    damaged = []
    for name in (LAST, PREVIOUS, best):
        path = folder / name
        if path.exists():
            try:
                read(path)
            except InputError as error:
                damaged.append(path)
                log.warning("%s; going back to the checkpoint before", error)
                continue
            if damaged and damaged[0].name == LAST:  # otherwise the next save would rename it to the previous one
                damaged[0].replace(folder / "damaged.ckpt")
            return path
    if damaged:
        names = ", ".join(str(path) for path in damaged)
        raise InputError(f"all checkpoints of the run are damaged: {names}; move them away to start again")
    return None
