"""Cached features: interrupted encoding is resumed; concurrent runs; leftovers of killed runs."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest
from conftest import CONFIGS, FAST
from test_program import IN_SMALL, photograph_options

from visattn import files
from visattn.cli import main
from visattn.errors import InputError
from visattn.models import Encoder
from visattn.training.callbacks import features

pytestmark = pytest.mark.usefixtures("one_thread")  # so that all processes compute the same bits

IMAGES, BATCH = 10, 3  # training and validation images of `karpathy_root`, and how many are encoded at a time


def encoded(log):
    """How many images each call has encoded."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def run(root, folder, name, monkeypatch, before=lambda call: None, *more):
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
    status = main([*words, *more])
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

    kept, handler = tmp_path / "kept", signal.getsignal(signal.SIGINT)
    for n, (name, content) in enumerate({"done.json": "{", "features.npy": "no array"}.items()):
        assert run(karpathy_root, kept, f"stopped {n}", monkeypatch, stop) == 130
        assert signal.getsignal(signal.SIGINT) is handler  # Lightning leaves it ignored
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


def together(rank, ranks, where, root, folder, name, before=lambda call: None):
    """One of several processes that torchrun would have started, with gloo."""
    port = where.read_text()
    for variable, value in {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "run",
    }.items():  # fmt: skip
        os.environ[variable] = str(value)
    features.POLL_SECONDS = 0.05
    more = [f"--trainer.devices={ranks}", "--trainer.strategy=ddp", f"--output={folder.parent / 'run'}"]
    return run(root, folder, f"{name} {rank}", pytest.MonkeyPatch(), before, *more)


def test_two_processes_encode_a_share_each(at_one_go, karpathy_root, tmp_path):
    """Without waiting for each other in between; killed and resumed; and read as one array."""
    kept, where = tmp_path / "kept", tmp_path / "port"
    fork = multiprocessing.get_context("fork")

    def launch(name, before=lambda call: None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where.write_text(str(free.getsockname()[1]))
        processes = [
            fork.Process(target=lambda rank=rank: sys.exit(together(rank, 2, where, karpathy_root, kept, name, before)))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(200)
        return [process.exitcode for process in processes], [
            encoded(tmp_path / f"{name} {rank}.log") for rank in (0, 1)
        ]

    codes, calls = launch("killed", lambda call: call == 2 and os.kill(os.getpid(), signal.SIGKILL))
    assert codes == [-9, -9]
    assert calls == [[3], [3]]
    codes, calls = launch("resumed")
    assert codes == [0, 0]
    assert calls == [[2], [2]]  # of five images each
    (folder,) = kept.iterdir()
    assert {path.name for path in folder.iterdir()} == {"features-1-of-2.npy", "features-2-of-2.npy", "ids.json"}
    store = features.FeatureStore(folder)
    ids = json.loads((folder / "ids.json").read_text())
    found = store.__getitems__(ids).numpy()
    np.testing.assert_allclose(found, at_one_go, rtol=1e-3, atol=1e-6)  # batches of other sizes can round otherwise
    assert np.array_equal(store[ids[7]].numpy(), found[7])
    assert np.array_equal(store.__getitems__(ids[6:9]).numpy(), found[6:9])


def test_a_process_that_stalls_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr(features, "POLL_SECONDS", 0.01)
    for name, rows, token in (("1", 5, "now"), ("2", 3, "now"), ("3", 5, "earlier")):
        record = {"rows": rows, "precision": "32", "run": token}
        (tmp_path / f"done-{name}-of-3.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"of the 3 processes .* 2, 3 made no progress"):
        features._wait(tmp_path, 3, 15, "now")


@pytest.mark.parametrize(("total", "count"), [(17, 1), (17, 2), (23, 5), (3, 3)])
def test_shares_are_every_row_once(total, count):
    rows = [features.Share(i, count).rows(total) for i in range(count)]
    assert [row for own in rows for row in own] == list(range(total))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
