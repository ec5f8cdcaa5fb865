"""Train and test a preset in one process: `python -m visattn.tasks.gpu_training FOLDER WORDS…`.

WORDS are those of `visattn fit`. The last line printed is JSON: accuracies, times and rates.
"""

import csv
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from visattn.errors import InputError
from visattn.training.runs.program import run_cli


def train(folder: Path, words: Sequence[str]) -> dict[str, float]:
    """Fit, and test the weights of the end.

    Args:
        folder: of the run, a new one.
        words: options of `visattn fit`, without an output.

    Returns:
        Accuracies in [0, 1]; `fit_seconds`, with reading the data and compiling; `epochs`, and images of each;
        `images_per_s`, the median over logged steps, and `seconds_at_that_rate`, if anything was logged.

    Raises:
        InputError: if an option or the data cannot be used.
    """
    began = time.perf_counter()
    trainer = run_cli(["fit", *words, f"--output={folder}"]).trainer
    numbers = {"fit_seconds": time.perf_counter() - began, "epochs": trainer.current_epoch}
    numbers["images_per_epoch"] = images = len(trainer.datamodule.ids("train"))
    if "val/accuracy" in trainer.callback_metrics:  # not if the time was over before
        numbers["val_accuracy"] = float(trainer.callback_metrics["val/accuracy"])
    if rates := _rates(folder):
        numbers["images_per_s"] = statistics.median(rates)
        numbers["seconds_at_that_rate"] = trainer.current_epoch * images / numbers["images_per_s"]
    tested = run_cli(["test", *words, f"--output={folder}", f"--ckpt_path={folder / 'last.ckpt'}"]).trainer
    return {**numbers, "test_accuracy": float(tested.callback_metrics["test/accuracy"])}


def _rates(folder: Path) -> list[float]:
    """Logged images per second of a run."""
    with (folder / "logs" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        return [float(rate) for row in csv.DictReader(file) if (rate := row.get("train/images_per_s"))]


if __name__ == "__main__":
    try:
        print(json.dumps(train(Path(sys.argv[1]), sys.argv[2:])))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
