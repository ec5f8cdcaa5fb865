"""Plot logged metrics over epochs, for one run or several on the same axes."""

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visattn.errors import InputError
from visattn.figures import Curves, curves_sheet
from visattn.files import protect, require_file
from visattn.overlay import save_figure


def read_metrics(run: Path) -> list[dict[str, str]]:
    """The rows of a run's logs, in the order of their steps.

    Raises:
        InputError: if there is no log.
    """
    logs = sorted(run.glob("logs/*/metrics.csv"), key=_version)
    if not logs:
        raise InputError(f"{run} has no logs/*/metrics.csv; give the --output folder of 'visattn fit'")
    rows = []
    for path in logs:
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return sorted(rows, key=lambda row: int(row["step"]))


def _version(log: Path) -> int:
    """The number of a log, of which a resumed run has several; of the values of one step the last counts."""
    number = log.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def line(rows: Sequence[dict[str, str]], number: str, run: Path, along: str = "epoch") -> tuple[np.ndarray, np.ndarray]:
    """A number along the epochs: (K,) epochs and (K,) values, those after a whole epoch at 1, 2, ….

    With `along` steps, or another number that was logged and begins at 0, such as train/seconds, it is along these.

    Raises:
        InputError: if it was not logged; the sentence names what was.
    """
    steps, values = _logged(rows, number, run)
    if along == "step":
        return steps, values
    if along != "epoch":
        of_along, ticks = _logged(rows, along, run)
        return np.interp(steps, np.append(0, of_along), np.append(0.0, ticks)), values
    steps_of_epoch = max((int(row["step"]) + 1) / (int(row["epoch"]) + 1) for row in rows if row.get("epoch"))
    return steps / steps_of_epoch, values


def _logged(rows: Sequence[dict[str, str]], number: str, run: Path) -> tuple[np.ndarray, np.ndarray]:
    """(K,) steps done, and (K,) the number after them."""
    found = {int(row["step"]) + 1: float(row[number]) for row in rows if row.get(number)}
    if not found:
        logged = sorted({name for row in rows for name, value in row.items() if value and "/" in name})
        raise InputError(f"{run} did not log {number!r}; it logged {', '.join(logged)}")
    return np.array(list(found)), np.array(list(found.values()))


def mean_of_seeds(lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The mean line of the runs whose names differ only in an ending such as _seed3, by the name without it.

    Raises:
        InputError: if they do not have as many values.
    """
    groups: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, one in lines.items():
        groups.setdefault(re.sub(r"_seed\d+$", "", name), []).append(one)
    for name, group in groups.items():
        if len({len(values) for _, values in group}) > 1:
            raise InputError(f"the seeds of '{name}' have different numbers of values; leave out --seeds, or some runs")
    return {name: tuple(np.mean(group, axis=0)) for name, group in groups.items()}


def means(epochs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each epoch that has any value, at its end; of the last, where its last value was logged."""
    ends = np.ceil(epochs - 1e-9)
    whole, number, counts = np.unique(ends, return_inverse=True, return_counts=True)
    whole[-1] = min(whole[-1], epochs[-1])
    return whole, np.bincount(number, values) / counts


def draw_curves(
    runs: Sequence[Path],
    output: Path,
    numbers: Sequence[str],
    averaged: bool = False,
    title: str = "",
    note: str = "",
    alongs: Sequence[str] = ("epoch",),
    seeds: bool = False,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draw logged numbers of trainings.

    Args:
        runs: the trainings' folders.
        output: the figure: .png, .svg or .pdf.
        numbers: names of what was logged, such as val/accuracy; a panel each.
        averaged: draw the mean of each epoch, not every number logged.
        title: above the panels.
        note: small text below the panels.
        alongs: what the numbers are drawn along, see `line`; each has panels of its own.
        seeds: draw the mean of runs that differ only in their seed.
        labels: what is written in place of the names of runs, numbers and what they are drawn along.

    Raises:
        InputError: if a run has no log, or has not logged such a number, or it is not finite; if a label is for a name
            that is not drawn, or two runs have the same.
    """
    protect(path for run in runs for path in run.glob("logs/*/metrics.csv"))
    require_file(output)
    logs = {run.name: (run, read_metrics(run)) for run in runs}
    if len(logs) < len(runs):
        raise InputError("two runs have the same name; the last parts of their paths must differ")
    panels, labels = [], labels or {}
    for along, number in itertools.product(alongs, numbers):
        lines = {name: line(rows, number, run, along) for name, (run, rows) in logs.items()}
        if averaged:
            lines = {name: means(*logged) for name, logged in lines.items()}
        if seeds:
            lines = mean_of_seeds(lines)
        values = np.concatenate([values for _, values in lines.values()])
        if not np.isfinite(values).all():
            raise InputError(f"{number} has values that are not finite and cannot be plotted")
        share = number.endswith(("accuracy", "/true", "pointing"))
        if share:
            lines = {name: (x, 100 * values) for name, (x, values) in lines.items()}
        unit, named = "%" if share else "", {labels.get(name, name): logged for name, logged in lines.items()}
        if unknown := labels.keys() - {*lines, *numbers, *alongs}:
            raise InputError(f"--label {min(unknown)}=… names nothing in the figure; its runs are {', '.join(lines)}")
        if len(named) < len(lines):
            raise InputError("two runs have the same --label; give each its own")
        panels.append(Curves(labels.get(number, number), named, unit, labels.get(along, along)))
    save_figure(curves_sheet(panels, title=title, note=note), output)
