"""Cached features: interrupted encoding is resumed; concurrent runs; leftovers of killed runs."""

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
from conftest import CONFIGS, FAST
from test_program import IN_SMALL, photograph_options

from visattn import files
from visattn.cli import main
from visattn.models import Encoder
from visattn.training.callbacks import features

pytestmark = pytest.mark.usefixtures("one_thread")  # so that all processes compute the same bits

IMAGES, BATCH = 10, 3  # training and validation images of `karpathy_root`, and how many are encoded at a time


def encoded(log):
    """How many images each call has encoded."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def run(root, folder, name, monkeypatch, before=lambda call: None):
    """Fit on cached features, in this process; `before` is called with the number of each encoder call, from 1."""
    log, forward = folder.parent / f"{name}.log", Encoder.forward

    def recorded(self, images):
        if not images.is_meta:  # else the grid is being found
            before(len(encoded(log)) + 1)
            with log.open("a") as file:
                file.write(f"{len(images)}\n")
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", recorded)
    monkeypatch.setattr(features, "RECORD_SECONDS", 0.0)
    cache = "visattn.training.callbacks.FeatureCache"
    words = ["fit", "--config", str(CONFIGS / "flickr8k_soft.yaml"), *FAST, *photograph_options(root), *IN_SMALL]
    words += ["--data.init_args.mirror=false", "--features=none", "--trainer.precision=32"]
    words += [f"--trainer.callbacks+={cache}", f"--trainer.callbacks.directory={folder}"]
    words += [f"--trainer.callbacks.batch_size={BATCH}", f"--output={folder.parent / name}"]
    status = main(words)
    monkeypatch.undo()
    return status


def start(*args):
    """The same in a separate process."""

    def go():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        sys.exit(run(*args[:3], pytest.MonkeyPatch(), *args[3:]))

    process = multiprocessing.get_context("fork").Process(target=go)
    process.start()
    return process


def array(folder):
    """The cached features in a folder, which must contain nothing else."""
    (kept,) = folder.iterdir()
    assert {path.name for path in kept.iterdir()} == {"features.npy", "ids.json"}
    return np.load(kept / "features.npy")


@pytest.fixture
def at_one_go(karpathy_root, tmp_path, monkeypatch):
    assert run(karpathy_root, tmp_path / "whole", "one", monkeypatch) == 0
    assert encoded(tmp_path / "one.log") == [3, 3, 3, 1]
    return array(tmp_path / "whole")


def test_interrupted_encoding_is_resumed(at_one_go, karpathy_root, tmp_path, monkeypatch, caplog):
    """Killed, terminated and interrupted, each in its second batch: recorded images are not encoded again."""
    kept = tmp_path / "kept"
    for number, status in {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}.items():
        process = start(karpathy_root, kept, number.name, lambda c, n=number: c == 2 and os.kill(os.getpid(), n))
        process.join(120)
        assert process.exitcode == status
        assert encoded(tmp_path / f"{number.name}.log") == [BATCH]
        assert all(path.name.startswith(".computing-") for path in kept.iterdir())
    caplog.set_level("INFO", "visattn")
    assert run(karpathy_root, kept, "last", monkeypatch) == 0
    assert encoded(tmp_path / "last.log") == [1]
    assert f"resuming at image 10 of {IMAGES}" in caplog.text
    assert np.array_equal(array(kept), at_one_go)


def test_a_damaged_record_or_array_restarts_the_encoding(at_one_go, karpathy_root, tmp_path, monkeypatch):
    def stop(call):
        if call == 3:
            raise KeyboardInterrupt

    kept = tmp_path / "kept"
    for n, (name, content) in enumerate({"done.json": "{", "features.npy": "no array"}.items()):
        assert run(karpathy_root, kept, f"stopped {n}", monkeypatch, stop) == 130
        (partial,) = (path for path in kept.iterdir() if path.is_dir())
        (partial / name).write_text(content)
    assert run(karpathy_root, kept, "second", monkeypatch) == 0
    assert sum(encoded(tmp_path / "second.log")) == IMAGES
    assert np.array_equal(array(kept), at_one_go)


def test_of_two_runs_at_once_one_encodes(at_one_go, karpathy_root, tmp_path):
    kept = tmp_path / "kept"
    processes = [start(karpathy_root, kept, name, lambda call: time.sleep(0.5)) for name in ("a", "b")]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sum(encoded(tmp_path / "a.log") + encoded(tmp_path / "b.log")) == IMAGES
    assert np.array_equal(array(kept), at_one_go)


def test_where_there_are_no_locks_each_run_encodes(at_one_go, karpathy_root, tmp_path, monkeypatch, caplog):
    kept = tmp_path / "kept"

    def other_is_first(call):
        if call == 2:
            (kept / name).mkdir()
            (kept / name / "features.npy").write_bytes((tmp_path / "whole" / name / "features.npy").read_bytes())
            (kept / name / "ids.json").write_bytes((tmp_path / "whole" / name / "ids.json").read_bytes())

    (name,) = (path.name for path in (tmp_path / "whole").iterdir())
    monkeypatch.setattr(files, "fcntl", None)
    assert run(karpathy_root, kept, "second", monkeypatch, other_is_first) == 0
    assert "cannot be locked" in caplog.text
    assert sum(encoded(tmp_path / "second.log")) == IMAGES
    assert np.array_equal(array(kept), at_one_go)


def test_abandoned_features_are_deleted_after_a_week(karpathy_root, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    for name, days in ((".computing-old", 8), (".computing-new", 6), ("old", 8)):
        (kept / name).mkdir(parents=True)
        (kept / name / "features.npy").touch()
        os.utime(kept / name, (0, time.time() - days * 24 * 3600))
    assert run(karpathy_root, kept, "run", monkeypatch) == 0
    names = {path.name for path in kept.iterdir()}
    assert ".computing-old" not in names
    assert {".computing-new", "old"} < names
