"""A data set with one fault of each kind, and one without any."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visattn.cli import check_data
from visattn.data.inspection import in_parallel
from visattn.errors import InputError

KINDS = {
    "missing": ["gone.png"],
    "undecodable": ["rotten.jpg", "page.jpg", "empty.png"],
    "odd size": ["line.png", "dot.png"],
    "duplicate picture": ["copy.png"],
    "duplicate id": ["whole-1"],
    "captionless": ["bare", "dumb"],
    "no text": ["dumb"],
    "empty caption": ["dumb"],
    "overlong caption": ["whole-2"],
}


def picture(path: Path, seed: int, size: tuple[int, int] = (29, 37)) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def entry(file: str, *captions: object) -> dict:
    return {"filename": file, "split": "train", "sentences": [{"raw": caption} for caption in captions]}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(5):
        picture(tmp_path / "images" / f"whole-{i}.png", i)
    images = [entry(f"whole-{i}.png", "A dog.", "A red dog runs.") for i in range(5)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images}))
    return tmp_path


@pytest.fixture
def faulty(clean: Path) -> Path:
    folder = clean / "images"
    picture(folder / "rotten.jpg", 7)
    (folder / "rotten.jpg").write_bytes((folder / "rotten.jpg").read_bytes()[:500])
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "empty.png").touch()
    picture(folder / "line.png", 8, (2, 211))
    picture(folder / "dot.png", 9, (1, 1))
    (folder / "copy.png").write_bytes((folder / "whole-0.png").read_bytes())
    picture(folder / "bare.png", 10)
    picture(folder / "dumb.png", 11)
    images = json.loads((clean / "captions.json").read_text())["images"]
    names = ["gone.png", "rotten.jpg", "page.jpg", "empty.png", "line.png", "dot.png", "copy.png"]
    images += [entry(name, "A dog.") for name in names]
    images += [entry("whole-1.png", "Again."), entry("bare.png"), entry("dumb.png", None, " . ")]
    images[2]["sentences"].append({"raw": "very " * 101})
    (clean / "captions.json").write_text(json.dumps({"images": images}))
    return clean


def run(root: Path, *options: str) -> int:
    return check_data.main(["--root", str(root), "--annotations", "captions.json", "--workers", "0", *options])


def test_a_clean_data_set(clean: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(clean, "--output", str(clean / "report.json")) == 0
    out, progress = capsys.readouterr()
    assert "5 images with 10 captions; 5 image files checked" in out
    assert "no faults found" in out
    assert "5/5" in progress
    report = json.loads((clean / "report.json").read_text())
    assert report["faults"] == []
    content = (clean / "images" / "whole-3.png").read_bytes()
    assert report["sha256"]["whole-3.png"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_fault_is_listed(faulty: Path, capsys: pytest.CaptureFixture, workers: str) -> None:
    assert run(faulty, "--output", str(faulty / "report.json"), "--workers", workers) == 1
    report = json.loads((faulty / "report.json").read_text())
    found: dict[str, list[str]] = {}
    for fault in report["faults"]:
        found.setdefault(fault["kind"], []).append(fault["where"])
    assert found == KINDS
    assert report["counts"] == {kind: len(where) for kind, where in KINDS.items()}
    out = capsys.readouterr().out
    assert "undecodable, 3 (unreadable images):" in out
    assert "copy.png · same as whole-0.png" in out
    assert "101 words" in out


def test_cocos_layout(clean: Path, capsys: pytest.CaptureFixture) -> None:
    images = [{"id": i, "file_name": f"whole-{i}.png"} for i in (0, 1, 2, 2)]
    captions = [(0, "A dog."), (1, 7), (2, "A dog."), (99, "of another part"), (98, "of another part")]
    annotations = [{"image_id": i, "caption": caption} for i, caption in captions]
    (clean / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    assert run(clean, "--output", str(clean / "report.json"), "--min-count", "1") == 1
    assert json.loads((clean / "report.json").read_text())["counts"] == {
        "stray caption": 1,
        "duplicate id": 1,
        "no text": 1,
        "captionless": 1,
    }
    assert "2 captions" in capsys.readouterr().out


def test_validation_captions_of_a_second_file_are_counted_once(clean: Path) -> None:
    images = json.loads((clean / "captions.json").read_text())["images"]
    images[0] |= {"split": "val", "sentences": [{"raw": "A dog."}]}
    (clean / "captions.json").write_text(json.dumps({"images": images[:4]}))
    (clean / "val.json").write_text(json.dumps({"images": [{**entry("whole-4.png", "A cow."), "split": "val"}]}))
    run(clean, "--annotations", "captions.json", "val.json", "--min-count", "1", "--output", str(clean / "report.json"))
    report = json.loads((clean / "report.json").read_text())
    (note,) = report["notes"]
    assert note.startswith("1 of 4 words")


def test_checksums_find_bit_rot(clean: Path, capsys: pytest.CaptureFixture) -> None:
    sums = clean / "sums.txt"
    Image.open(clean / "images" / "whole-4.png").save(clean / "images" / "whole-4.jpg", quality=90)
    images = [entry(f"whole-{i}.png", "A dog.") for i in range(4)] + [entry("whole-4.jpg", "A dog.")]
    (clean / "captions.json").write_text(json.dumps({"images": images}))
    assert run(clean, "--write-checksums", str(sums)) == 0
    assert run(clean, "--checksums", str(sums)) == 0
    assert "5 of them compared" in capsys.readouterr().out
    content = bytearray((clean / "images" / "whole-4.jpg").read_bytes())
    content[-40] ^= 4
    (clean / "images" / "whole-4.jpg").write_bytes(content)
    assert run(clean) == 0  # it can still be decoded: nobody would know
    assert run(clean, "--checksums", str(sums)) == 1
    assert "checksum, 1" in capsys.readouterr().out
    sums.write_text("no digest\n")
    assert run(clean, "--checksums", str(sums)) == 2
    assert "line 1: expected sha256sum" in capsys.readouterr().err


def test_a_check_that_cannot_be_made(clean: Path, capsys: pytest.CaptureFixture) -> None:
    for options, sentence in {
        ("--images", "nowhere"): "no such folder; set --images",
        ("--annotations", "gone.json"): "no such annotation file",
        ("--workers", "-1"): "--workers is -1",
        ("--output", str(clean)): "is a folder; name a file",
        ("--checksums", "gone.txt"): "gone.txt cannot be read",
    }.items():
        assert run(clean, *options) == 2
        assert sentence in capsys.readouterr().err


def test_a_process_that_dies_is_an_error_and_not_a_hang():
    def die(item):
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(InputError, match="data died"):
        list(in_parallel(die, range(7), 2, "Looking"))


def test_workers_run_after_multithreaded_work_in_the_parent():
    """As when images are checked after a model was built: forked processes lack its threads."""
    code = """
import torch
from visattn.data.inspection import in_parallel
torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500) + torch.randn(3000, 3000).exp().sum()
print(list(in_parallel(lambda i: float(torch.ones(3000, 3000).exp().sum() > i), range(4), 2, "Looking")))
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[1.0, 1.0, 1.0, 1.0]"


def test_stopping_early_does_not_wait_for_all_items():
    start, results = time.monotonic(), in_parallel(lambda item: time.sleep(0.2) or item, range(100), 2, "Looking")
    assert next(results) == 0
    results.close()
    assert time.monotonic() - start < 8  # all would take ten seconds


def test_results_of_workers_come_in_order():
    """With a function that cannot be pickled, such as one of a data module with a trainer."""
    for workers in (0, 2):
        assert list(in_parallel(lambda item: item * item, range(300), workers, "Looking")) == [
            i * i for i in range(300)
        ]
