"""All ways to stop: a resumed run has the steps and weights of an uninterrupted one, bit by bit."""

import contextlib
import os
import signal

import pytest
import torch
from conftest import CONFIGS, SMALL_SHAPES
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from witness import QUIET, steps, watched

from visattn.cli import main
from visattn.training.checkpoints import read
from visattn.training.classifier import Classifier

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN, WITHIN = (), ("--trainer.val_check_interval=2",)  # the latter validates within an epoch, too
UNVALIDATED = ("--trainer.limit_val_batches=0",)
ACCUMULATED = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3")


def words(folder, *more):
    """A tiny classifier with drawn mixes, 2 epochs of 4 batches; its rate does not depend on how long it trains."""
    small = ["--model.model.size=12", "--model.model.depth=1", "--model.mixup=0.8", "--data.batch_size=6"]
    steady = ["--model.optimization.final=1.0", "--model.optimization.warmup=0.0"]
    config = ["--config", str(CONFIGS / "shapes_vit.yaml"), f"--output={folder}", "--trainer.max_epochs=2"]
    return ["fit", *config, *QUIET, *SMALL_SHAPES, *small, *steady, *more]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A function of options: the steps, and the checkpoint at the end."""
    known = {}

    def run(common):
        if common not in known:
            folder = tmp_path_factory.mktemp("whole")
            with watched(folder / "record"):
                assert main(words(folder / "run", *common)) == 0
            known[common] = steps(folder / "record"), read(folder / "run" / "last.ckpt")
        return known[common]

    return run


def assert_goes_on(run, record, expected, *second):
    """--resume auto trains the rest, and the whole is the uninterrupted run."""
    with watched(record):
        assert main(words(run, "--resume=auto", *second)) == 0
    entries, checkpoint = expected
    assert steps(record) == entries
    found = read(run / "last.ckpt")
    assert found["global_step"] == checkpoint["global_step"]
    assert all(torch.equal(found["state_dict"][name], weights) for name, weights in checkpoint["state_dict"].items())
    best = [state for name, state in checkpoint["callbacks"].items() if name.startswith("ModelCheckpoint")]
    assert [s["best_model_score"] for n, s in found["callbacks"].items() if n.startswith("ModelCheckpoint")] == [
        state["best_model_score"] for state in best
    ]


LIMITS = {
    "steps": (PLAIN, ["--trainer.max_steps=1"], []),
    "steps up to the end of an epoch": (PLAIN, ["--trainer.max_steps=4"], []),
    "steps within the second epoch": (WITHIN, ["--trainer.max_steps=7"], []),
    "steps at a validation": (WITHIN, ["--trainer.max_steps=2"], []),
    "steps, then more steps": (PLAIN, ["--trainer.max_steps=3"], ["--trainer.max_steps=8", "--trainer.max_epochs=-1"]),
    "an epoch, then steps": (PLAIN, ["--trainer.max_epochs=1"], ["--trainer.max_steps=8", "--trainer.max_epochs=-1"]),
    "epochs": (WITHIN, ["--trainer.max_epochs=1"], []),
    "batches of an epoch": (UNVALIDATED, ["--trainer.limit_train_batches=3", "--trainer.max_epochs=1"], []),
    "a share of an epoch": (UNVALIDATED, ["--trainer.limit_train_batches=0.5", "--trainer.max_epochs=1"], []),
    "accumulated steps": (ACCUMULATED, ["--trainer.max_steps=1"], []),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_raised(limit, uninterrupted, tmp_path):
    common, first, second = LIMITS[limit]
    expected = uninterrupted(common)
    with watched(tmp_path / "record"):
        assert main(words(tmp_path / "run", *common, *first)) == 0
    assert 0 < len(steps(tmp_path / "record")) < 8
    assert_goes_on(tmp_path / "run", tmp_path / "record", expected, *common, *second)


def test_the_same_limit_of_batches_goes_on_with_the_next_epoch(tmp_path):
    """The limit applies to the epoch."""
    run, limit = tmp_path / "run", "--trainer.limit_train_batches=2"
    assert main(words(run, limit, "--trainer.max_epochs=1")) == 0
    with watched(tmp_path / "record"):
        assert main(words(run, limit, "--resume=auto")) == 0
    assert read(run / "last.ckpt")["global_step"] == 4
    assert [entry[0] for entry in steps(tmp_path / "record")] == [2, 3]


@contextlib.contextmanager
def stopping(batch, kind, method):
    """`trainer.should_stop` set at the end of a method, in the batch of this number."""
    original = getattr(kind, method)

    def stop(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        trainer = self.trainer if isinstance(self, Classifier) else args[0]
        if trainer.fit_loop.total_batch_idx == batch:
            trainer.should_stop = True
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, method, stop)
        yield


STOPS = {
    "a step": (PLAIN, 1, Classifier, "training_step"),
    "a step of the second epoch": (PLAIN, 5, Classifier, "training_step"),
    "the last step of an epoch": (PLAIN, 3, Classifier, "training_step"),
    "a step before a validation": (WITHIN, 1, Classifier, "training_step"),
    "a callback": (WITHIN, 2, EarlyStopping, "on_train_batch_start"),
    "a validation": (WITHIN, 1, EarlyStopping, "on_validation_end"),
    "the module, late": (PLAIN, 1, Classifier, "on_train_batch_end"),
    "the module, late, without validation": (UNVALIDATED, 1, Classifier, "on_train_batch_end"),
    "half a step": (ACCUMULATED, 0, Classifier, "training_step"),
    "a validation within half a step": (ACCUMULATED, 2, EarlyStopping, "on_validation_end"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_stops_a_training(stop, uninterrupted, tmp_path):
    common, batch, kind, method = STOPS[stop]
    expected = uninterrupted(common)
    own = []
    if issubclass(kind, Callback):
        own = ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
        own += ["--trainer.callbacks.patience=99"]
    with watched(tmp_path / "record"), stopping(batch, kind, method):
        assert main(words(tmp_path / "run", *common, *own)) == 0
    assert 0 < len(steps(tmp_path / "record")) < 8
    assert_goes_on(tmp_path / "run", tmp_path / "record", expected, *common, *own)


def test_a_limit_of_time(uninterrupted, tmp_path, monkeypatch):
    expected = uninterrupted(PLAIN)
    record = tmp_path / "record"
    with monkeypatch.context() as patch, watched(record):
        patch.setattr(Timer, "time_elapsed", lambda *_: 60.0 * len(steps(record)) if record.exists() else 0.0)
        assert main(words(tmp_path / "run", "--trainer.max_time=00:00:03:00")) == 0
    assert len(steps(record)) == 3
    assert_goes_on(tmp_path / "run", record, expected)


@pytest.mark.parametrize("saves", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_a_run_resumes_from_the_last_checkpoint(error, saves, uninterrupted, tmp_path):
    expected, record = uninterrupted(PLAIN), tmp_path / "record"

    def before(step):
        if step == 5:
            raise error

    every = f"--last.every_steps={saves}"
    with watched(record, before), pytest.raises(RuntimeError) if error is RuntimeError else contextlib.nullcontext():
        assert main(words(tmp_path / "run", every)) == 130
    saved = read(tmp_path / "run" / "last.ckpt")["global_step"]
    assert saved == (5 if saves else 4)
    record.write_text("".join(line + "\n" for line in record.read_text().splitlines()[:saved]))
    assert_goes_on(tmp_path / "run", record, expected, every)


def test_an_interrupt_lets_the_step_be_finished(uninterrupted, tmp_path, caplog):
    expected, handler = uninterrupted(PLAIN), signal.getsignal(signal.SIGINT)

    def before(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with watched(tmp_path / "record", before), pytest.raises(SystemExit) as stopped:
        main(words(tmp_path / "run"))
    assert stopped.value.code == 130
    assert "SIGINT: stopped after step 2" in caplog.text
    assert signal.getsignal(signal.SIGINT) == handler
    assert_goes_on(tmp_path / "run", tmp_path / "record", expected)


def test_a_second_interrupt_ends_the_process_at_once(tmp_path, capsys):
    handler = signal.getsignal(signal.SIGINT)

    def before(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with watched(tmp_path / "record", before):
        assert main(words(tmp_path / "run")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(steps(tmp_path / "record")) == 1
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_raised_limit_continues_on_the_schedule_of_the_whole(tmp_path):
    """The second run does not begin with the first one's final learning rate of 0."""
    fall = ["--model.optimization.final=0.0"]
    assert main(words(tmp_path / "whole", *fall)) == 0
    assert main(words(tmp_path / "run", *fall, "--trainer.max_steps=3")) == 0
    with watched(tmp_path / "record"):
        assert main(words(tmp_path / "run", *fall, "--resume=auto")) == 0
    rates = [entry[3] for entry in steps(tmp_path / "record")]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.5 * 2e-3
