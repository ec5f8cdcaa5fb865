"""Callbacks that keep an accelerator busy: what is compiled, and when losses are read."""

from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule
from torch import nn

from visattn.errors import InputError
from visattn.training.callbacks import Compilation, StopWhenNotFinite, Throughput


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 2)


@pytest.mark.parametrize(("training_only", "compiled"), [(True, [1, 1, 2]), (False, [1, 2, 3])])
def test_validation_can_run_what_is_not_compiled(training_only, compiled, monkeypatch):
    """How often the compiled part has run after training, validation, and training again."""
    calls, found = [], []

    def pretend(self, **options):
        calls.clear()
        self._compiled_call_impl = lambda *args: calls.append(options) or self._call_impl(*args)

    monkeypatch.setattr(nn.Module, "compile", pretend)
    callback, module = Compilation(mode="reduce-overhead", training_only=training_only), Module()
    trainer, x = SimpleNamespace(state=SimpleNamespace(fn="fit")), torch.ones(5, 3)
    expected = module.model(x)
    callback.on_fit_start(trainer, module)
    for before in (None, callback.on_validation_start, callback.on_validation_end):
        if before:
            before(trainer, module)
        assert torch.equal(module.model(x), expected)
        found.append(len(calls))
    assert found == compiled
    assert calls[0] == {"backend": "inductor", "mode": "reduce-overhead"}


def test_training_time_is_logged_without_validation(monkeypatch):
    """Steps of 2, 3 and 5 seconds, validation of 7 after the second; then the run is resumed."""
    now, logged = [100.0], {}
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: now[0] / 2)
    module = SimpleNamespace(log_dict=lambda values, **_: logged.update(values))
    trainer = SimpleNamespace(log_every_n_steps=3, world_size=1, global_step=0)
    batch = SimpleNamespace(ids=["a"] * 4)
    callback = Throughput()
    callback.on_train_start(trainer, module)
    for index, seconds in enumerate((2, 3, 5)):
        now[0] += seconds
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, batch, index)
        if index == 1:
            now[0] += 7
            callback.on_validation_end(trainer, module)
    callback.on_train_epoch_end(trainer, module)
    assert logged == {"train/images_per_s": 12 / 10, "train/seconds": 10.0, "train/processor_s": 5.0}
    resumed = Throughput()
    resumed.load_state_dict(callback.state_dict())
    resumed.on_train_start(trainer, module)
    now[0] += 1
    resumed.on_train_batch_end(trainer, module, None, batch, 3)
    resumed.on_train_epoch_end(trainer, module)
    assert logged["train/seconds"] == 11.0


def test_rates_of_short_epochs_and_of_accumulated_batches_are_logged(monkeypatch):
    """Epochs of two batches, logs after four optimizer steps, each of two batches: images of all eight batches."""
    now, logged = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    module = SimpleNamespace(log_dict=lambda values, **_: logged.append(values))
    trainer = SimpleNamespace(log_every_n_steps=4, world_size=1, global_step=0)
    callback, batch = Throughput(), SimpleNamespace(ids=["a"] * 3)
    callback.on_train_start(trainer, module)
    for number in range(18):
        if number % 2 == 0:
            callback.on_train_epoch_start(trainer, module)
        now[0] += 2
        trainer.global_step += number % 2
        callback.on_train_batch_end(trainer, module, None, batch, number % 2)
    assert logged == 2 * [{"train/images_per_s": 1.5}]


class Far(torch.Tensor):
    """A tensor that says that it is on an accelerator."""

    device = torch.device("cuda")


def test_losses_on_an_accelerator_are_read_together():
    callback, module = StopWhenNotFinite(), Module()
    trainer = SimpleNamespace(global_step=0, current_epoch=0, log_every_n_steps=5)

    def step(number, value):
        trainer.global_step = number
        callback.on_train_batch_start(trainer, module, SimpleNamespace(ids=[f"image-{number}"]), number)
        callback.on_before_backward(trainer, module, torch.tensor(value).as_subclass(Far))

    for number in range(7):
        step(number, 0.5)
    step(7, float("nan"))
    step(8, float("inf"))
    with pytest.raises(InputError, match=r"loss is nan in step 8 .* image-7;"):
        step(9, 0.5)
    step(10, float("inf"))
    with pytest.raises(InputError, match=r"loss is inf in step 11 "):  # before anything is saved
        callback.on_save_checkpoint(trainer, module, {})
