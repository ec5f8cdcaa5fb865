"""Faults during training end it with one sentence, and do not damage what was saved."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import CONFIGS, FAST, SMALL_SHAPES
from test_resuming import captioner_words, fork

from visattn.cli import main
from visattn.data import ShapesCaptions
from visattn.errors import InputError
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import read
from visattn.training.classifier import Classifier
from visattn.training.runs import claimed

WORDS = ["--config", str(CONFIGS / "shapes_vit.yaml"), *FAST, *SMALL_SHAPES]


def sentence(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(bad, tmp_path, monkeypatch, capsys):
    """The error names the step and its images; earlier checkpoints and the weights are unchanged."""
    step, ids = Captioner.training_step, []

    def third_is_bad(self, batch, index):
        loss = step(self, batch, index)
        if self.global_step != 2:
            return loss
        ids.extend(batch.ids)
        return loss.abs() * bad

    monkeypatch.setattr(Captioner, "training_step", third_is_bad)
    assert main(captioner_words(tmp_path, "--data.init_args.workers=0")) == 2
    said = sentence(capsys)
    assert f"the loss is {bad} in step 3 (epoch 0, batch 2)" in said
    assert ", ".join(ids) in said
    checkpoint = read(tmp_path / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert not list(tmp_path.glob("best*"))


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, monkeypatch, capsys):
    """After a finite loss, with an infinite gradient."""
    monkeypatch.setattr(Classifier, "on_after_backward", lambda self: self.model.head.bias.grad.fill_(float("inf")))
    assert main(["fit", *WORDS, f"--output={tmp_path}", "--last.every_steps=1"]) == 2
    said = sentence(capsys)
    assert "are not finite after step 1 (epoch 0, batch 0), with the images train-" in said
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_loss_that_is_no_number_ends_a_validation_too(captioner_checkpoint, tmp_path, capsys):
    """The weights of one word are infinite: only images with that word in a caption are named."""
    checkpoint, word = torch.load(captioner_checkpoint, weights_only=True), "circle"
    number = checkpoint["hyper_parameters"]["output_names"].index(word)
    checkpoint["state_dict"]["decoder.embedding.weight"][number] = float("inf")
    torch.save(checkpoint, tmp_path / "broken.ckpt")
    config = ["--config", str(CONFIGS / "shapes_captioner.yaml"), *FAST, *SMALL_SHAPES]
    assert main(["validate", *config, f"--ckpt_path={tmp_path / 'broken.ckpt'}", f"--output={tmp_path}"]) == 2
    named = [
        name
        for name, captions in ShapesCaptions(val_size=7).references("val").items()
        if any(word in caption for caption in captions)
    ]
    assert 0 < len(named) < 7
    assert f"the val loss of the images {', '.join(named)} is not finite in torch.float32" in sentence(capsys)


@pytest.mark.parametrize(
    ("subcommand", "options", "said"),
    [
        ("fit", ["--data.init_args.train_size=0"], "train"),
        ("fit", ["--trainer.limit_train_batches=0"], "'visattn fit' had no batch"),
        ("fit", ["--trainer.limit_train_batches=0.01"], "limit_train_batches"),
        ("validate", ["--trainer.limit_val_batches=0"], "'visattn validate' had no batch"),
        ("test", ["--trainer.limit_test_batches=0"], "'visattn test' had no batch"),
        ("predict", ["--trainer.limit_predict_batches=0"], "'visattn predict' had no batch"),
    ],
)
def test_empty_runs_are_errors(subcommand, options, said, classifier_checkpoint, tmp_path, capsys):
    checkpoint = [f"--ckpt_path={classifier_checkpoint}"] if subcommand != "fit" else []
    assert main([subcommand, *WORDS, f"--output={tmp_path}", *options, *checkpoint]) == 2
    assert said in sentence(capsys)


def test_a_worker_that_dies_is_an_error(tmp_path, monkeypatch):
    """In a separate process, so that a hang would be noticed."""
    monkeypatch.setattr(ShapesCaptions, "load", lambda self, example: os.kill(os.getpid(), signal.SIGKILL))

    def train():
        torch.set_num_threads(1)
        with (tmp_path / "said").open("w") as said:
            os.dup2(said.fileno(), 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        sys.exit(main(captioner_words(tmp_path / "run")))

    process = fork(train)
    process.join(120)
    assert process.exitcode == 2
    assert "DataLoader worker (pid" in (tmp_path / "said").read_text()


def test_errors_in_workers_are_one_sentence(tmp_path, monkeypatch, capsys):
    def load(self, example):
        raise InputError(f"{example.id} is no picture")

    monkeypatch.setattr(ShapesCaptions, "load", load)
    assert main(captioner_words(tmp_path)) == 2
    assert sentence(capsys).endswith("is no picture")


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_an_unwritable_output_is_reported_before_training(
    subcommand, classifier_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("lightning.Trainer._run", lambda *_, **__: pytest.fail("it has begun"))
    (tmp_path / "file").write_text("no folder")
    checkpoint = [f"--ckpt_path={classifier_checkpoint}"] if subcommand != "fit" else []
    assert main([subcommand, *WORDS, f"--output={tmp_path / 'file' / 'run'}", *checkpoint]) == 2
    assert f"{tmp_path / 'file'} is a file" in sentence(capsys)  # what stands in the way


def test_two_runs_in_one_folder_are_refused(tmp_path, capsys):
    """While the other process lives; killing it frees the folder immediately."""
    script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); f.write('process 7');"
    script += "f.flush(); print('claimed', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "claimed\n"
        assert main(["fit", *WORDS, f"--output={tmp_path}"]) == 2
        assert f"{tmp_path} is in use by another run (process 7)" in sentence(capsys)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        other.kill()
    with claimed(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()


def test_a_system_without_locks_trains_after_a_warning(tmp_path):
    """As on Windows: no fcntl, no SIGUSR1, no signal masks."""
    script = """
import os, signal, sys, types
from lightning.pytorch.trainer.connectors import signal_connector
signal_connector.signal = types.SimpleNamespace(**vars(signal))  # what Lightning does on Windows is its own affair
sys.modules["fcntl"] = None
for name in ("SIGUSR1", "sigwaitinfo", "pthread_sigmask"):
    delattr(signal, name)
del os.pwrite
from visattn.cli import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["fit", *WORDS, "--data.init_args.workers=1", f"--output={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path} cannot be locked" in done.stderr
    assert (tmp_path / "last.ckpt").exists()


def test_resume_auto_skips_damaged_checkpoints(tmp_path, caplog, capsys):
    """It starts anew without checkpoints, falls back to the previous one, and fails if all are damaged."""
    words = ["fit", *WORDS, f"--output={tmp_path}", "--resume=auto", "--last.every_steps=1"]
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert main(words) == 0
    assert main(["fit", *WORDS, f"--output={tmp_path}"]) == 2
    assert "already holds a run" in sentence(capsys)
    good = previous.read_bytes()
    last.write_bytes(last.read_bytes()[:999])
    assert main([*words, "--trainer.max_epochs=2"]) == 0
    assert f"checkpoint {last} is damaged (999 bytes)" in caplog.text
    assert (tmp_path / "damaged.ckpt").stat().st_size == 999
    assert read(last)["epoch"] == 1
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (tmp_path / name).write_bytes(good[:99])
    assert main(words) == 2
    assert "all checkpoints of the run are damaged" in sentence(capsys)
    assert len(last.read_bytes()) == 99
