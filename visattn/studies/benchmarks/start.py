"""Time from pressing return to the first caption, the first overlay and the first training step.

Each row is a command in a process of its own, from its start to its end, beside imports that it needs. Warm: the median
of the rounds, after one that is not counted. Cold (Linux): the files of the environment leave the page cache before,
except for those that other processes have mapped. Processor time is that of the warm rounds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from visattn.data.shapes import make_scene
from visattn.errors import InputError
from visattn.studies.benchmarks.overlays import picture
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting

PACKAGES = ("lightning", "matplotlib")


class Sizes(NamedTuple):
    """Attributes: sides (H, W) of the picture in pixels; whether to start cold, too; how many of the commands."""

    image: tuple[int, int] = (480, 640)
    cold: bool = True
    commands: int | None = None


FULL, QUICK = Sizes(), Sizes((41, 53), cold=False, commands=1)


def commands(folder: Path, image: tuple[int, int]) -> dict[str, list[str]]:
    """Command lines by name; writes their inputs to the folder."""
    Image.fromarray(picture(np.random.default_rng(0), image)).save(folder / "photo.png")
    make_scene(np.random.default_rng(0), 2).picture(64).save(folder / "scene.png")
    step = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false"]
    own = {
        "caption photo.png": ["caption", "photo.png"],
        "caption --checkpoint captioner-shapes scene.png": ["caption", "--checkpoint", "captioner-shapes", "scene.png"],
        "overlay --checkpoint vit-cifar10 photo.png": ["overlay", "--checkpoint", "vit-cifar10", "photo.png"],
        "fit --config shapes_captioner, one step": ["fit", "--config", "shapes_captioner", *step],
    }
    imports = ("import torch, timm", "import torch, timm, lightning")
    return {
        "visattn --help": [sys.executable, "-m", "visattn", "--help"],
        **{f'python -c "{line}"': [sys.executable, "-c", line] for line in imports},
        **{f"visattn {n}": [sys.executable, "-m", "visattn", *words, "--output", "out"] for n, words in own.items()},
    }


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """One table; commands run in turn, with the setting's number of threads."""
    with tempfile.TemporaryDirectory() as name:
        every = dict(list(commands(folder := Path(name), sizes.image).items())[: sizes.commands])
        rows: dict[str, dict[str, float]] = {command: {} for command in every}
        if sizes.cold and hasattr(os, "posix_fadvise"):
            for command, words in every.items():
                forget()
                rows[command]["cold, s"] = run(words, folder)[0]
        rounds = [{command: run(words, folder) for command, words in every.items()} for _ in range(setting.rounds + 1)]
    for command, row in rows.items():
        wall, processor = zip(*(found[command] for found in rounds[1:]), strict=True)
        row |= {"warm, s": statistics.median(wall), "processor, s": statistics.median(processor)}
    columns = dict.fromkeys(("cold, s", "warm, s", "processor, s"), ".1f")
    return [Table("From pressing return to the end of the command", "command", columns, rows)]


def run(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of clock and of processor that a command takes.

    Raises:
        InputError: if it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise InputError(f"{' '.join(words)} failed: {' '.join(done.stderr.split())[-300:]}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, processor  # 0 on Windows, which does not count that of children


def forget() -> None:
    """Take the environment's files out of the page cache."""
    for folder in {Path(torch.__file__).parent.parent, Path(os.__file__).parent}:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
