"""Killed, stopped or failed runs that are resumed: every step equals that of an uninterrupted run."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import witness
from conftest import CONFIGS, FAST, SMALL_SHAPES
from witness import QUIET, steps, watched

from visattn.cli import main
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import WholeCheckpoints, read
from visattn.training.runs.program import run_cli

pytestmark = pytest.mark.usefixtures("one_thread")  # as in the processes that are killed


class Killed(BaseException):
    """What a kill leaves of a process: nothing is saved, caught or put in order."""


def raising(step):
    def before(now):
        if now == step:
            raise Killed

    return before


def captioner_words(folder, *more):
    """Drawn places with their moving baseline, coins of scheduled sampling, dropout, a worker; 2 epochs of 4 steps."""
    configs = ["shapes_captioner.yaml", "attention/hard_published.yaml", "training/scheduled_sampling.yaml"]
    schedule = "--model.init_args.regime.init_args.schedule.init_args"
    return [
        "fit",
        *(word for config in configs for word in ("--config", str(CONFIGS / config))),
        *QUIET,
        *SMALL_SHAPES,
        f"--output={folder}",
        "--trainer.max_epochs=2",
        "--data.init_args.batch_size=29",
        "--data.init_args.eval_batch_size=3",
        "--data.init_args.workers=1",
        "--model.init_args.decoder.init_args.dropout=0.3",
        f"{schedule}.start=0.75",
        f"{schedule}.slope=0.0625",
        "--last.every_steps=1",
        *more,
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The steps; the weights and the best score at the end."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    with watched(folder / "record"):
        assert main(captioner_words(folder / "run")) == 0
    return steps(folder / "record"), end(folder / "run")


def fork(function, *args):
    """A process of its own that begins as a copy of this one."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def end(folder):
    checkpoint = read(folder / "last.ckpt")
    (best,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("ModelCheckpoint"))
    return {**checkpoint["state_dict"], "best": best["best_model_score"]}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_that_is_killed_twice_is_the_run_that_was_not(uninterrupted, tmp_path, capsys):
    """kill -9 within an epoch, then between two, in a new interpreter; --resume auto, --ckpt_path last, and a path."""
    expected, trained = uninterrupted
    assert [entry[0] for entry in expected] == list(range(8))
    run, record = tmp_path / "run", tmp_path / "record"
    first = fork(witness.be_killed, record, 2, captioner_words(run, "--resume=auto"))
    first.join(300)
    assert first.exitcode == -signal.SIGKILL
    assert read(run / "last.ckpt")["global_step"] == 2
    assert main(captioner_words(run, "--ckpt_path=last", "--data.init_args.batch_size=23")) == 2
    assert "an epoch with batches 4, but this data has 5" in capsys.readouterr().err
    words = [sys.executable, witness.__file__, str(record), "4", *captioner_words(run, "--ckpt_path=last")]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read(run / "last.ckpt")["global_step"] == read(run / "previous.ckpt")["global_step"] == 4
    with watched(record):
        assert main(captioner_words(run, f"--ckpt_path={run / 'last.ckpt'}")) == 0
    assert steps(record) == expected
    assert_same(end(run), trained)


@pytest.mark.parametrize(
    ("number", "hook", "saved"),
    [
        (signal.SIGTERM, "training_step", 2),  # within an epoch
        (signal.SIGUSR1, "training_step", 4),  # its last step: the validation is still to come
        (signal.SIGTERM, "validation_step", 4),  # within the validation
    ],
)
def test_a_signal_ends_a_run_after_the_step_and_one_save(
    number, hook, saved, uninterrupted, tmp_path, monkeypatch, caplog
):
    # As in a fresh process: a worker's death is told at once. Lightning has taken that handler away after the last run.
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    expected, trained = uninterrupted
    run, record, written = tmp_path / "run", tmp_path / "record", []
    validation_step, save = Captioner.validation_step, WholeCheckpoints.save_checkpoint

    def twice():  # as a scheduler does, to all processes of the run
        everyone = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
        for _ in range(2):
            subprocess.run(["kill", f"-{number.name}", *map(str, everyone)], check=True)

    def validated(self, batch, index):
        twice()
        validation_step(self, batch, index)

    def before(step):
        if hook == "training_step" and step == saved - 1:
            twice()

    def counted(self, checkpoint, path, storage_options=None):
        written.append((Path(path).name, checkpoint["global_step"]))
        save(self, checkpoint, path, storage_options)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", counted)
    with monkeypatch.context() as patched, watched(record, before), pytest.raises(SystemExit) as stopped:  # noqa: PT012
        if hook == "validation_step":
            patched.setattr(Captioner, hook, validated)
        main(captioner_words(run, "--last.every_steps=0"))
    assert stopped.value.code == {signal.SIGTERM: 143, signal.SIGUSR1: 138}[number]
    assert written == [("last.ckpt", saved)]
    assert f"{number.name}: stopped after step {saved}" in caplog.text
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == handlers
    with watched(record):
        assert main(captioner_words(run, "--last.every_steps=0", "--ckpt_path=last")) == 0
    assert steps(record) == expected
    assert_same(end(run), trained)
    assert written.count(("best.ckpt", 4)) == 1  # the validation was made up for


def test_augmentation_and_mixing_go_on_as_well(cifar_root, tmp_path):
    """CIFAR-10 with crops, flips, MixUp and CutMix in two worker processes."""

    def words(folder, *more):
        options = ["--trainer.max_epochs=2", "--data.init_args.batch_size=17", "--data.init_args.workers=2"]
        data = [f"--data.init_args.root={cifar_root}", "--data.init_args.download=false"]
        mixed = ["--model.init_args.mixup=0.8", "--model.init_args.cutmix=1.0", "--trainer.accumulate_grad_batches=2"]
        config = ["--config", str(CONFIGS / "cifar10_vit.yaml"), f"--output={folder}", "--last.every_steps=1"]
        return ["fit", *config, *QUIET, *options, *data, *mixed, *more]

    whole, run = tmp_path / "whole", tmp_path / "run"
    with watched(tmp_path / "expected"):
        assert main(words(whole)) == 0
    with watched(tmp_path / "record", raising(2)), pytest.raises(Killed):
        main(words(run))
    with watched(tmp_path / "record"):
        assert main(words(run, "--ckpt_path=last")) == 0
    expected = steps(tmp_path / "expected")
    assert len(expected) == 12
    assert steps(tmp_path / "record") == expected
    assert_same(end(run), end(whole))


def test_a_run_with_its_data_on_the_device_goes_on_as_well(cifar_root, tmp_path):
    """The preset for a GPU, on a CPU: stronger augmentation of whole batches, mixing of each image, drop path."""

    def words(folder, *more):
        configs = [word for name in ("60s", "10min") for word in ("--config", f"cifar10/gpu_{name}")]
        small = ["--model.model.size=12", "--model.model.depth=1", "--model.model.embed.widths=[3,5]"]
        data = [f"--data.root={cifar_root}", "--data.download=false", "--data.batch_size=23", "--data.val_fraction=0.1"]
        short = ["--trainer.callbacks=[]", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=3"]
        return ["fit", *configs, *QUIET, *small, *data, *short, f"--output={folder}", "--last.every_epochs=3", *more]

    whole, run = tmp_path / "whole", tmp_path / "run"
    with watched(tmp_path / "expected"):
        assert main(words(whole)) == 0
    with watched(tmp_path / "record", raising(11)), pytest.raises(Killed):
        main(words(run, "--last.every_steps=5"))
    assert read(run / "last.ckpt")["global_step"] == 10
    assert read(run / "previous.ckpt")["global_step"] == 5  # the end of the second epoch was not saved
    with watched(tmp_path / "record"):
        assert main(words(run, "--resume=auto")) == 0
    expected = steps(tmp_path / "expected")
    assert len(expected) == 12
    found = steps(tmp_path / "record")
    assert [*found[:10], *found[-2:]] == expected
    assert_same(end(run), end(whole))


def test_a_run_whose_folder_was_moved_remembers_its_best(captioner_checkpoint, tmp_path):
    """Otherwise the next validation would overwrite it, even with a worse one."""
    moved = tmp_path / "moved"
    shutil.copytree(captioner_checkpoint.parent, moved)
    words = ["--config", str(CONFIGS / "shapes_captioner.yaml"), *FAST, *SMALL_SHAPES, f"--output={moved}"]
    best = run_cli(["fit", *words, "--ckpt_path=last"]).trainer.checkpoint_callback
    assert best.best_model_path == str(moved / "best.ckpt")
    assert best.best_model_score == end(captioner_checkpoint.parent)["best"]
    assert list(best.best_k_models) == [best.best_model_path]
