"""Train every attention mechanism on the same data with the same budget, and compare them."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from visattn import __version__
from visattn.data.captions import CaptionData
from visattn.errors import InputError
from visattn.figures import comparison_sheet
from visattn.files import write_text
from visattn.overlay import save_figure
from visattn.studies.comparison import LEGEND, compare_maps, step_times, table
from visattn.training.captioner import Captioner
from visattn.training.runs.configurations import packaged
from visattn.training.runs.program import run_cli


class Mechanism(NamedTuple):
    """A row of the table.

    Attributes:
        title: what people read.
        overlays: names of files in configs/attention, laid over the data's configuration in this order.
    """

    title: str
    overlays: tuple[str, ...]


MECHANISMS = {
    "mean": Mechanism("Mean vector, no attention", ("mean", "luong")),
    "soft_xu": Mechanism("Soft, published form (Xu)", ("soft", "xu")),
    "hard_xu": Mechanism("Hard, published form (Xu)", ("hard_published", "xu")),
    "soft": Mechanism("Soft", ("soft", "luong")),
    "hard": Mechanism("Hard, leave one out", ("hard", "luong")),
    "sparsemax": Mechanism("Sparsemax", ("sparsemax", "luong")),
    "entmax": Mechanism("1.5-entmax", ("entmax", "luong")),
    "sentinel": Mechanism("Soft with a sentinel", ("sentinel", "luong")),
    "local_m": Mechanism("Local-m", ("local_m", "luong")),
    "local_p": Mechanism("Local-p", ("local_p", "luong")),
    "multihead": Mechanism("Multi-head", ("multihead", "luong")),
    "transformer": Mechanism("Transformer", ("transformer",)),
}
REFERENCE = "soft"  # whose time per step is 1


class Source(NamedTuple):
    """A data set for the comparison.

    Attributes:
        config: of the captioner, in configs.
        split: on which the best checkpoints are scored.
        options: words for the command line of every run.
        transformer: more of them for the Transformer decoder, whose sizes are its own.
    """

    config: str
    split: str
    options: tuple[str, ...] = ()
    transformer: tuple[str, ...] = ()


DECODER = "--model.init_args.decoder.init_args"
OPTIMIZATION = "--model.init_args.optimization.init_args"
SOURCES = {
    # Fewer epochs than the recipe's, for what eight trainings take; five are enough to tell mechanisms apart.
    "shapes": Source("shapes_captioner", "test", ("--trainer.max_epochs=5",)),
    "flickr8k": Source(
        "flickr8k_soft",
        "val",
        (),
        (f"{DECODER}.size=512", f"{DECODER}.heads=8", f"{DECODER}.dropout=0.3", f"{OPTIMIZATION}.lr=5e-4"),
    ),
}


def command(name: str, source: Source, folder: Path, options: Sequence[str]) -> list[str]:
    """The words of the command line for a mechanism, after the subcommand."""
    configs = [packaged(source.config), *(packaged(f"attention/{o}") for o in MECHANISMS[name].overlays)]
    words = [word for config in configs for word in ("--config", str(config))]
    words += ["--output", str(folder), "--trainer.enable_progress_bar=false", *source.options]
    return [*words, *(source.transformer if name == "transformer" else ()), *options]


def train(name: str, source: Source, output: Path, options: Sequence[str], threads: int) -> None:
    """Fit one mechanism in a process of its own, or what is missing of it; leaves the minutes in `minutes.txt`.

    Raises:
        InputError: if the run fails; it names the log.
    """
    folder, log = output / name, output / f"{name}.log"
    if (folder / "minutes.txt").exists():
        return
    begun = ["--ckpt_path", str(folder / "last.ckpt")] if (folder / "last.ckpt").exists() else []
    start = time.perf_counter()
    with log.open("a") as file:
        process = subprocess.run(
            [sys.executable, "-m", "visattn", "fit", *command(name, source, folder, options), *begun],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if process.returncode:
        said = log.read_text().strip().splitlines()[-1:]
        raise InputError(f"training '{name}' failed; the end of {log}: {''.join(said)}")
    write_text(folder / "minutes.txt", f"{(time.perf_counter() - start) / 60:.2f}")


def score(
    name: str, source: Source, output: Path, options: Sequence[str]
) -> tuple[dict[str, float], Captioner, CaptionData]:
    """Score a mechanism's best checkpoint: the metrics of the source's split, the model, and the data."""
    words = [*command(name, source, output / name, options), "--ckpt_path", str(output / name / "best.ckpt")]
    with (output / f"{name}.log").open("a") as file, contextlib.redirect_stdout(file):
        cli = run_cli(["test" if source.split == "test" else "validate", *words])
    prefix = f"{source.split}/"
    metrics = {
        n.removeprefix(prefix): float(v) for n, v in cli.trainer.callback_metrics.items() if n.startswith(prefix)
    }
    return metrics, cli.model, cli.datamodule


def compare(
    output: Path, source: Source, mechanisms: Sequence[str], jobs: int, scenes: int, options: Sequence[str] = ()
) -> dict[str, dict]:
    """The whole comparison; see the head of this file for what is written.

    Args:
        output: folder for all that is written.
        source: what for training.
        mechanisms: keys of `MECHANISMS`.
        jobs: trainings at a time; the processor's cores are divided among them.
        scenes: pictures in the figure.
        options: more words for the command line of every run.

    Returns:
        The results by mechanism.
    """
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(mechanisms), desc="Training", unit="mechanism") as bar:
        waiting = {pool.submit(train, name, source, output, options, threads): name for name in mechanisms}
        try:
            for future in as_completed(waiting):
                future.result()
                bar.set_postfix_str(MECHANISMS[waiting[future]].title)
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    results, models = {}, {}
    for name in tqdm(mechanisms, desc="Scoring", unit="mechanism"):
        metrics, models[name], data = score(name, source, output, options)
        results[name] = {
            "title": MECHANISMS[name].title,
            "configs": [source.config, *(f"attention/{overlay}" for overlay in MECHANISMS[name].overlays)],
            "minutes": float((output / name / "minutes.txt").read_text()),
            "parameters": sum(parameter.numel() for parameter in models[name].decoder.parameters()),
            "metrics": metrics,
        }
    times = step_times(models, next(iter(data.train_dataloader())))
    for name, result in results.items():
        result["step_ms"] = round(times[name], 2)
        result["step"] = round(times[name] / times.get(REFERENCE, next(iter(times.values()))), 3)
    titled = {MECHANISMS[name].title: model for name, model in models.items()}
    save_figure(comparison_sheet(compare_maps(titled, data, source.split, scenes)), output / "compare.png")
    about = {
        "date": date.today().isoformat(),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "data": data.describe(),
        "split": source.split,
        "options": [*source.options, *options],
        "jobs": jobs,
        "threads_each": threads,
        "versions": {"visattn": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    write_text(output / "results.json", json.dumps({"about": about, "results": results}, indent=1))
    write_text(output / "compare.md", f"{table(results)}\n\n{LEGEND}\n")
    return results
