"""Any command line works, or gives one sentence that says what is wrong, and exit status 2.

The options are those that the parsers have, so that new ones are tried, too. By default a sample is tried, always the
same; all with `VISATTN_FUZZ=all`, which takes half an hour.
"""

import argparse
import importlib
import json
import os
import random
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIGS, FAST, SMALL_SHAPES
from PIL import Image
from support.parsers import parser_of

import visattn as visattn_package
from visattn.cli import COMMANDS, TRAINING
from visattn.cli import main as visattn

OWN = sorted(name.replace("-", "_") for name in COMMANDS if name not in TRAINING)
MOST = None if os.environ.get("VISATTN_FUZZ") == "all" else 40  # command lines of a program
NUMBERS = ["0", "-1", "1", "1.5", "-0.5", "nan", "inf", "-inf", "1e308", "9" * 25, "2147483648", "0x10", "१", "1e9"]
TEXTS = ["", " ", "x", "-", ",", "💥\u202e", "\udcff", "a" * 300, "%s{}", "null", "../..", "[1", "{", "random", "8cm"]
PATHS = ["absent/file", ".", "/dev/null", "text", "empty", "image.png", "damaged.png", "damaged.ckpt", "list.json"]
PATIENCE = 30  # seconds
MEMORY = 12 << 30  # bytes of addresses: what asks for more than a machine has must fail as on a small one
VALUES = [*NUMBERS, *TEXTS, *PATHS]
INCLUDED = str(Path(visattn_package.__file__).parent / "pretrained" / "captioner_shapes")


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of odd files, as the working directory."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (43, 59, 3), dtype=np.uint8)).save("image.png")
    Path("text").write_text("two words\n")
    Path("empty").touch()
    Path("damaged.png").write_bytes(Path("image.png").read_bytes()[:500])
    Path("damaged.ckpt").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    Path("list.json").write_text("[[1]]")
    data = Path("data")
    (data / "images").mkdir(parents=True)
    Image.open("image.png").save(data / "images" / "1.png")
    caption = {"image_id": 1, "id": 1, "caption": "a red circle"}
    (data / "captions.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "1.png", "width": 59, "height": 43}], "annotations": [caption]})
    )
    (data / "candidates.json").write_text(json.dumps([caption]))
    box = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 30, 1, 30, 30]]}
    outlines = {"images": [{"id": 1, "file_name": "1.png", "width": 59, "height": 43}], "annotations": [box]}
    (data / "instances.json").write_text(json.dumps(outlines | {"categories": [{"id": 1, "name": "dog"}]}))
    log = Path("run/logs/version_0/metrics.csv")
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step,val/loss\n0,1,2.0\n1,3,1.0\n")
    return tmp_path


@pytest.fixture
def usual(here, captioner_checkpoint, classifier_checkpoint, monkeypatch) -> dict[str, list[list[str]]]:
    """Valid command lines of each program, except for long trainings."""
    from visattn.cli import overlay
    from visattn.tasks import benchmark, compare, demo, estimators, glimpses, gpu_check, prepare_coco, sequences
    from visattn.tasks.app import run

    monkeypatch.setattr(demo, "train_and_test", stop)
    monkeypatch.setattr(compare, "train", stop)
    monkeypatch.setattr(prepare_coco, "download", stop)
    monkeypatch.setattr(sequences, "train", stop)
    monkeypatch.setattr(estimators, "half_trained", stop)
    monkeypatch.setattr(estimators, "learn_all", stop)
    monkeypatch.setattr(glimpses, "train", stop)
    monkeypatch.setattr("visattn.tasks.app.require_gradio", lambda: None)
    monkeypatch.setattr(run, "choose_reader", stop)
    monkeypatch.setattr(gpu_check.Check, "run", stop)
    for module in benchmark.SUBJECTS.values():
        monkeypatch.setattr(module, "measure", stop)
    overlay.main(["--checkpoint", "vit-cifar10", "--export", "npz", "--output", "results", "image.png"])
    captioner, classifier = str(captioner_checkpoint), str(classifier_checkpoint)
    root = ["--root", "data", "--annotations", "captions.json"]
    timm = ["--timm", "test_vit", "--weights", "random", "--output", "out", "image.png"]
    return {
        "app": [["--port", "0"]],
        "benchmark": [["vit", "--quick"], ["decoding"], ["maps"], ["growth", "--quick"]],
        "caption": [["--checkpoint", captioner, "--output", "out", "--max-length", "2", "image.png"]],
        "check_data": [[*root, "--workers", "0"]],
        "compare": [["--output", "out", "--jobs", "1"]],
        "curves": [["run", "--number", "val/loss", "--output", "out.png"]],
        "demo": [["--output", "out"]],
        "estimators": [["--output", "out"]],
        "evaluate": [["--references", "data/captions.json", "--candidates", "data/candidates.json"]],
        "explain_page": [["--checkpoint", classifier, "--output", "out.html", "--images", "image.png"]],
        "export": [["--checkpoint", classifier, "--output", "out"]],
        "exposure": [["--output", "out", "report.json"]],
        "faithfulness": [["--checkpoint", classifier, "--output", "out", "--steps", "2", "--seeds", "1", "image.png"]],
        "features": [["--checkpoint", classifier, "--output", "out", "image.png"]],
        "glimpses": [["--output", "out", "--scenes", "7", "--test-scenes", "5"]],
        "gpu_check": [["--device", "cpu", "--output", "out", "--parts", "tests", "maps"]],
        "rank": [
            [
                "--checkpoint",
                classifier,
                "--output",
                "out",
                "--steps",
                "2",
                "--groups",
                "2",
                "--method",
                "raw",
                "image.png",
            ]
        ],
        "ground": [["--checkpoint", captioner, *root, "--instances", "instances.json", "--output", "out.json"]],
        "overlay": [["--checkpoint", classifier, "--output", "out", "image.png"], timm],
        "prepare_coco": [["--root", "coco"]],
        "push": [[INCLUDED, "lab/shapes", "--picture", "image.png", "--dry-run"]],
        "sequences": [["--output", "out"]],
        "view": [["--output", "out.html", "results"]],
    }


class ReachedError(Exception):
    """Raised instead of starting long work."""


class TooLong(BaseException):
    """Raised if a program has not ended after `PATIENCE` seconds."""


def late(*_):
    raise TooLong


def stop(*_, **__):
    raise ReachedError


def mistakes(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[list[str]]:
    """The command line with each option and each positional argument given each value, twice, or none."""
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers.append(action.choices[words[0]])
    for option in [action for part in parsers for action in part._actions if action.option_strings]:
        flag = option.option_strings[-1]
        if flag in ("-h", "--help"):
            continue
        count = option.nargs if isinstance(option.nargs, int) else 1
        if option.nargs == 0:
            yield [*words, flag]
            yield [*words, flag, flag]
            continue
        for value in VALUES:
            yield [*words, f"{flag}={value}"] if count == 1 else [*words, flag, *[value] * count]
        yield [*words, flag]
        for choice in option.choices or ():
            yield [*words, flag, str(choice)]
    yield []
    yield ["--absent", *words]
    for place, word in enumerate(words):
        if not word.startswith("-"):
            for value in VALUES:
                yield [*words[:place], value, *words[place + 1 :]]
        yield [*words[:place], *words[place + 1 :]]
    yield [*words, *words]


def sample(program: str, lines: list[list[str]]) -> list[list[str]]:
    return random.Random(program).sample(lines, min(len(lines), MOST or len(lines)))


def outcome(program, words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with a program's reaction to a command line; None if nothing is."""
    capsys.readouterr()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = program(words)
    except ReachedError:
        return None
    except SystemExit as end:
        status = end.code
    except (Exception, TooLong) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
    said = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    if status == 2 and (len(said) < 1 or len(said[0].split("error: ")[1]) < 8):
        return f"2, and said {said}"
    return (
        None
        if status in (0, 2) or (status == 1 and program.__module__ == "visattn.cli.check_data")
        else f"status {status}"
    )


@pytest.mark.parametrize("name", OWN)
def test_a_mistake_on_a_command_line_is_a_sentence(name, usual, monkeypatch, capsys):
    program = importlib.import_module(f"visattn.cli.{name}").main
    parser = parser_of(name, monkeypatch)
    lines = [line for words in usual[name] for line in mistakes(parser, words)]
    faults = {}
    for words in sample(name, lines):
        if fault := outcome(program, words, capsys):
            faults[" ".join(words)] = fault
    assert not faults, "\n".join(f"{name} {words!r}: {fault}" for words, fault in faults.items())


CAPTIONER = ["fit", "--config", str(CONFIGS / "shapes_captioner.yaml")]
CLASSIFIER = ["fit", "--config", str(CONFIGS / "shapes_vit.yaml")]
NUMERIC = ["0", "-1", "nan", "-inf", "x", "[]", "null"]
OPTIONS = [
    *(f"data.init_args.{name}" for name in ("batch_size", "eval_batch_size", "workers", "seed", "image_size")),
    *(f"data.init_args.{name}" for name in ("train_size", "val_size", "max_length", "min_count", "absent")),
    *(f"model.init_args.decoder.init_args.{name}" for name in ("hidden", "embedding", "dropout", "attention")),
    *(f"model.init_args.optimization.init_args.{name}" for name in ("lr", "warmup", "optimizer", "weight_decay")),
    *(f"model.init_args.{name}" for name in ("encoder", "decoder", "regime", "label_smoothing", "max_length")),
    *(f"trainer.{name}" for name in ("max_epochs", "devices", "precision", "accelerator", "gradient_clip_val")),
    *("checkpoint.monitor", "last.every_steps", "model", "data", "ckpt_path", "start_from", "resume", "config"),
]


def test_a_mistake_in_a_training_is_a_sentence(here, capsys):
    usual = ["--output", "out", *SMALL_SHAPES, *FAST]
    lines = [[*CAPTIONER, *usual, f"--{option}={value}"] for option in OPTIONS for value in NUMERIC]
    lines += [[], ["fly"], ["fit"], ["fit", "--config"], ["fit", "--config", "damaged.png"], ["test", *CLASSIFIER[1:]]]
    faults = {}
    for number, words in enumerate(sample("fit", lines)[: MOST and 15]):
        words = [word.replace("out", f"out{number}") if word == "out" else word for word in words]
        if fault := outcome(visattn, words, capsys):
            faults[" ".join(words[-1:])] = fault
    assert not faults, "\n".join(f"{words}: {fault}" for words, fault in faults.items())
