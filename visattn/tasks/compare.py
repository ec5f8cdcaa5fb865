"""Train every attention mechanism on the same data with the same budget, and compare them."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from visattn.data.captions import CaptionData
from visattn.errors import InputError
from visattn.figures import comparison_sheet
from visattn.files import write_json, write_text
from visattn.overlay import save_figure
from visattn.studies.comparison import LEGEND, compare_maps, step_times, table
from visattn.tasks.provenance import provenance
from visattn.training.captioner import Captioner
from visattn.training.runs.configurations import packaged
from visattn.training.runs.program import run_cli

DECODER = "--model.init_args.decoder.init_args"
OPTIMIZATION = "--model.init_args.optimization.init_args"


class Mechanism(NamedTuple):
    """A row of the table.

    Attributes:
        title: what people read.
        overlays: names of files in configs/attention, laid over the data's configuration in this order.
        options: further words for the command line of a run.
    """

    title: str
    overlays: tuple[str, ...]
    options: tuple[str, ...] = ()


MECHANISMS = {
    "mean": Mechanism("Mean vector, no attention", ("mean", "luong")),
    "soft_xu": Mechanism("Soft, published form (Xu)", ("soft", "xu")),
    "hard_xu": Mechanism("Hard, published form (Xu)", ("hard_published", "xu")),
    "soft": Mechanism("Soft", ("soft", "luong")),
    "hard": Mechanism("Hard, leave one out", ("hard", "luong")),
    "hard_average": Mechanism("Hard, moving average", ("hard_published", "luong")),
    "hard_2": Mechanism(
        "Hard, leave one out, K = 2",
        ("hard", "luong"),
        ("--model.init_args.loss.init_args.reinforce.init_args.baseline.init_args.draws=2",),
    ),
    "hard_without_replacement": Mechanism("Hard, without replacement", ("hard_without_replacement", "luong")),
    "hard_rebar": Mechanism("Hard, REBAR", ("hard_rebar", "luong")),
    "hard_straight_through": Mechanism("Hard, straight-through", ("straight_through", "luong")),
    "hard_reinmax": Mechanism("Hard, ReinMax", ("reinmax", "luong")),
    "sparsemax": Mechanism("Sparsemax", ("sparsemax", "luong")),
    "entmax": Mechanism("1.5-entmax", ("entmax", "luong")),
    "sigmoid": Mechanism("Sigmoid", ("sigmoid", "luong")),
    "sentinel": Mechanism("Soft with a sentinel", ("sentinel", "luong")),
    "whole": Mechanism("Soft, places and the whole", ("whole", "luong")),
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
        transformer: words for the command line of the Transformer decoder, whose sizes are its own.
    """

    config: str
    split: str
    transformer: tuple[str, ...] = ()


SOURCES = {
    "shapes": Source("shapes_captioner", "test"),
    "flickr8k": Source(
        "flickr8k_soft",
        "val",
        (f"{DECODER}.size=512", f"{DECODER}.heads=8", f"{DECODER}.dropout=0.3", f"{OPTIMIZATION}.lr=5e-4"),
    ),
}


class Trial(NamedTuple):
    """A training run: a key of `MECHANISMS`, and a seed."""

    name: str
    seed: int

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.name}_seed{self.seed}" if self.seed else self.name


def command(trial: Trial, source: Source, output: Path, options: Sequence[str]) -> list[str]:
    """The words of the command line for a trial, after the subcommand."""
    name, seed = trial
    configs = [packaged(source.config), *(packaged(f"attention/{o}") for o in MECHANISMS[name].overlays)]
    words = [word for config in configs for word in ("--config", str(config))]
    words += ["--output", str(output / trial.folder), "--trainer.enable_progress_bar=false"]
    words += [f"--seed_everything={seed}", *MECHANISMS[name].options]
    return [*words, *(source.transformer if name == "transformer" else ()), *options]


def train(trial: Trial, source: Source, output: Path, options: Sequence[str], threads: int) -> None:
    """Fit a mechanism in a process of its own, or what is missing of it.

    Leaves the minutes in `minutes.txt`, and in `minutes_so_far.txt` if it ends too early, to be added to later.

    Raises:
        InputError: if the run fails; it names the log.
    """
    folder, log = output / trial.folder, output / f"{trial.folder}.log"
    if (folder / "minutes.txt").exists():
        return
    begun = ["--ckpt_path", str(folder / "last.ckpt")] if (folder / "last.ckpt").exists() else []
    so_far = folder / "minutes_so_far.txt"
    before = float(so_far.read_text()) if begun and so_far.exists() else 0.0
    start = time.perf_counter()
    try:
        with log.open("a") as file:
            process = subprocess.run(
                [sys.executable, "-m", "visattn", "fit", *command(trial, source, output, options), *begun],
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
    finally:
        minutes = f"{before + (time.perf_counter() - start) / 60:.2f}"
        if folder.is_dir():
            write_text(so_far, minutes)
    if process.returncode:
        said = log.read_text().strip().splitlines()[-1:]
        raise InputError(f"training '{trial.folder}' failed; the end of {log}: {''.join(said)}")
    so_far.replace(folder / "minutes.txt")


def score(
    trial: Trial, source: Source, output: Path, options: Sequence[str]
) -> tuple[dict[str, float], Captioner, CaptionData]:
    """Score a trial's best checkpoint: the metrics of the source's split, the model, and the data."""
    words = [*command(trial, source, output, options), "--ckpt_path", str(output / trial.folder / "best.ckpt")]
    with (output / f"{trial.folder}.log").open("a") as file, contextlib.redirect_stdout(file):
        cli = run_cli(["test" if source.split == "test" else "validate", *words])
    prefix = f"{source.split}/"
    metrics = {
        n.removeprefix(prefix): float(v) for n, v in cli.trainer.callback_metrics.items() if n.startswith(prefix)
    }
    return metrics, cli.model, cli.datamodule


def summarised(seeds: dict[int, dict[str, float]]) -> dict[str, dict]:
    """The mean of each metric over seeds, their standard deviations (none for one seed), and the metrics by seed."""
    names = [name for name in next(iter(seeds.values())) if all(name in metrics for metrics in seeds.values())]
    values = {name: [metrics[name] for metrics in seeds.values()] for name in names}
    return {
        "metrics": {name: statistics.fmean(of_seeds) for name, of_seeds in values.items()},
        "sd": {name: statistics.stdev(of_seeds) for name, of_seeds in values.items()} if len(seeds) > 1 else {},
        "seeds": seeds,
    }


def compare(
    output: Path,
    source: Source,
    mechanisms: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    scenes: int,
    options: Sequence[str] = (),
) -> dict[str, dict]:
    """The whole comparison; see `visattn.cli.compare` for what is written.

    Args:
        output: folder for all that is written.
        source: what for training.
        mechanisms: keys of `MECHANISMS`.
        seeds: each mechanism is trained with each; the figure and the times are those of the first.
        jobs: trainings at a time; PyTorch's threads are divided among them.
        scenes: pictures in the figure.
        options: more words for the command line of every run.

    Returns:
        The results by mechanism.
    """
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    threads = max(1, torch.get_num_threads() // jobs)  # as OMP_NUM_THREADS says, if it is set
    trials = [Trial(name, seed) for seed in seeds for name in mechanisms]
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(trials), desc="Training", unit="run") as bar:
        waiting = {pool.submit(train, trial, source, output, options, threads): trial for trial in trials}
        try:
            for future in as_completed(waiting):
                future.result()
                bar.set_postfix_str(MECHANISMS[waiting[future].name].title)
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    scores: dict[str, dict[int, dict[str, float]]] = {name: {} for name in mechanisms}
    models: dict[str, Captioner] = {}
    for trial in tqdm(trials, desc="Scoring", unit="run"):
        scores[trial.name][trial.seed], model, data = score(trial, source, output, options)
        models.setdefault(trial.name, model)
    results = {
        name: {
            "title": MECHANISMS[name].title,
            "configs": [source.config, *(f"attention/{overlay}" for overlay in MECHANISMS[name].overlays)],
            "options": list(MECHANISMS[name].options),
            "minutes": [float((output / Trial(name, seed).folder / "minutes.txt").read_text()) for seed in seeds],
            "parameters": sum(parameter.numel() for parameter in models[name].decoder.parameters()),
            **summarised(scores[name]),
        }
        for name in mechanisms
    }
    times = step_times(models, next(iter(data.train_dataloader())))
    for name, result in results.items():
        result["step_ms"] = round(times[name], 2)
        result["step"] = round(times[name] / times.get(REFERENCE, next(iter(times.values()))), 3)
    titled = {MECHANISMS[name].title: model for name, model in models.items()}
    save_figure(comparison_sheet(compare_maps(titled, data, source.split, scenes)), output / "compare.png")
    about = {
        **provenance(),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "data": data.describe(),
        "split": source.split,
        "options": [*options],
        "seeds": list(seeds),
        "jobs": jobs,
        "threads_each": threads,
    }
    write_json(output / "results.json", {"about": about, "results": results})
    write_text(output / "compare.md", f"{table(results)}\n\n{LEGEND}\n")
    return results
