"""The check on a GPU: its parts, limits and results, with programs that only pretend; and a training in a tiny form."""

import json
import stat
import sys

import numpy as np
import pytest
from conftest import CONFIGS
from test_data_cifar import parts

from visattn.cli import gpu_check as command
from visattn.cli import main
from visattn.data import CIFAR10
from visattn.tasks import gpu_check
from visattn.tasks.gpu_check import Check, tiny
from visattn.tasks.gpu_training import train

PROGRAM = """#!{python} -SE
import json, sys, time
words = " ".join(sys.argv[1:])
if "-m pytest" in words:
    print("FAILED tests/gpu/test_a.py::test_b - AssertionError\\n== 1 failed, 29 passed, 2 skipped in 3.1s ==")
    sys.exit(1)
if "gpu_training" in words:
    if "gpu_5min" in words and "callbacks=[]" not in words:
        print("Traceback\\nRuntimeError: the compiler is tired\\nmore")
        sys.exit(1)
    epochs = int(words.partition("max_epochs=")[2].split()[0])
    print("so far\\n" + json.dumps({{"epochs": epochs, "images_per_s": 600.0, "test_accuracy": 0.5}}))
elif "captioner" in words:
    time.sleep(60)
else:
    path = words.partition("--output ")[2].split()[0]
    spread = {{"median": 7.5, "least": 7.0, "most": 8.0}}
    table = {{"title": "T", "of": "what", "rows": {{"ours": {{"ms": spread, "of": "x"}}}}, "note": ""}}
    open(path, "w").write(json.dumps({{"tables": [table]}}))
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A program that pretends to be Python, and limits a hundred times as short."""
    program = tmp_path / "python"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(gpu_check.sys, "executable", str(program))
    monkeypatch.setattr(gpu_check, "LEAST", 0.0)


def test_every_part_is_run_in_its_order_and_kept(pretended, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    words = ["gpu-check", "--device", "cpu", "--minutes", "0.45", "--data", ".", "--output", "out"]
    assert main(words) == 1  # parts failed
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines == [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    found = {line["part"]: line for line in lines}
    assert list(found) == ["machine", *command.PARTS, "cifar_5min, not compiled"]
    assert command.PARTS == gpu_check.PARTS
    statuses = {part: line["status"] for part, line in list(found.items())[1:]}
    assert statuses.pop("tests") == statuses.pop("cifar_5min") == "failed"
    assert statuses.pop("captioner") == "timed out"
    assert set(statuses.values()) == {"done"}
    assert found["tests"]["numbers"] == {"failed": 1, "passed": 29, "skipped": 2}
    assert found["tests"]["failed"] == ["tests/gpu/test_a.py::test_b"]
    assert found["vit"]["numbers"] == {"T": {"ours": {"ms": 7.5, "of": "x"}}}
    assert found["cifar_5min"]["error"] == "RuntimeError: the compiler is tired"
    limits = [found[part]["limit"] for part in ("tests", "vit", "cifar_60s")]
    assert limits == pytest.approx([6, 9 / 5, 5.25], abs=0.2)
    assert found["captioner"]["seconds"] == pytest.approx(found["captioner"]["limit"], abs=2)
    # What is left at 600 images a second, with less for each, is not one epoch.
    assert found["cifar_5min, not compiled"]["numbers"]["epochs"] == 1
    assert found["cifar_60s"]["numbers"]["epochs"] == 45
    table = (output / "results.md").read_text()
    assert all(f"| {part} | " in table for part in command.PARTS)
    assert "T: ours 7.5 ms" in table
    assert "test accuracy 0.5" in table
    assert "RuntimeError: the compiler is tired" in table
    assert main(words) == 2
    assert "results.jsonl exists already; choose another --output" in capsys.readouterr().err


def test_epochs_fit_into_the_time_that_is_left(pretended, tmp_path):
    check = Check(tmp_path / "out", tmp_path, "cpu", False, 540)
    gpu_check_rate = 49_000 * gpu_check.WORK  # one epoch a second
    check._ends = float("inf")
    check._rate, check._left = gpu_check_rate, lambda: 145.0
    check._training("cifar_5min")
    assert [line["numbers"].get("epochs") for line in check.lines] == [None, 100]


def test_without_data_nothing_is_started(tmp_path, capsys):
    words = ["gpu-check", "--device", "cpu", "--output", str(tmp_path / "out"), "--data", str(tmp_path / "absent")]
    assert main(words) == 2
    assert f"--data {tmp_path / 'absent'} has neither part_0.npz nor" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_checkout_or_time_parts_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    check = Check(tmp_path / "out", tmp_path, "cpu", True, 0.5)
    assert not check.run(["tests", "vit"])
    assert [line["status"] for line in check.lines[1:]] == ["left out", "left out"]
    assert "run it from a checkout" in check.markdown()
    assert "no time was left" in check.markdown()


def test_epochs_known_here_are_the_presets():
    for name, epochs in gpu_check.EPOCHS.items():
        text = (CONFIGS / "cifar10" / f"gpu_{name.removeprefix('cifar_')}.yaml").read_text()
        assert f"max_epochs: {epochs}" in text.replace(",", "\n")


def test_a_preset_is_trained_and_tested_from_parts(cifar_root, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "counts", (100, 20))
    parts(cifar_root, tmp_path / "parts", 2)
    words = ["--config=cifar10/gpu_60s", f"--data.root={tmp_path / 'parts'}", "--trainer.accelerator=cpu"]
    numbers = train(tmp_path / "run", [*words, *tiny()])
    assert numbers["epochs"] == 1
    assert numbers["images_per_epoch"] == 90
    assert 0 <= numbers["val_accuracy"] <= 1
    assert np.isclose(numbers["seconds_at_that_rate"] * numbers["images_per_s"], 90)
    assert round(numbers["test_accuracy"] * 10, 6) == int(round(numbers["test_accuracy"] * 10, 6))  # of ten images
