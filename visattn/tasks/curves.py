"""Plot logged metrics over epochs, for one run or several on the same axes."""

import csv
from collections.abc import Sequence
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
    logs = list(run.glob("logs/*/metrics.csv"))
    if not logs:
        raise InputError(f"{run} has no logs/*/metrics.csv; give the --output folder of 'visattn fit'")
    rows = []
    for path in logs:
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return sorted(rows, key=lambda row: int(row["step"]))


def line(rows: Sequence[dict[str, str]], number: str, run: Path) -> tuple[np.ndarray, np.ndarray]:
    """A number along the epochs: (K,) epochs and (K,) values, those after a whole epoch at 1, 2, ….

    Raises:
        InputError: if it was not logged; the sentence names what was.
    """
    found = {int(row["step"]): float(row[number]) for row in rows if row.get(number)}
    if not found:
        logged = sorted({name for row in rows for name, value in row.items() if value and "/" in name})
        raise InputError(f"{run} did not log {number!r}; it logged {', '.join(logged)}")
    steps_of_epoch = max((int(row["step"]) + 1) / (int(row["epoch"]) + 1) for row in rows if row.get("epoch"))
    steps, values = np.array(list(found)), np.array(list(found.values()))
    return (steps + 1) / steps_of_epoch, values


def means(epochs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each epoch that has any value, at its end; of the last, where its last value was logged."""
    ends = np.ceil(epochs - 1e-9)
    whole, number, counts = np.unique(ends, return_inverse=True, return_counts=True)
    whole[-1] = min(whole[-1], epochs[-1])
    return whole, np.bincount(number, values) / counts


def draw_curves(
    runs: Sequence[Path], output: Path, numbers: Sequence[str], averaged: bool = False, title: str = "", note: str = ""
) -> None:
    """Draw logged numbers of trainings.

    Args:
        runs: the trainings' folders.
        output: the figure: .png, .svg or .pdf.
        numbers: names of what was logged, such as val/accuracy; a panel each.
        averaged: draw the mean of each epoch, not every number logged.
        title: above the panels.
        note: small text below the panels.

    Raises:
        InputError: if a run has no log, or has not logged such a number, or it is not finite.
    """
    protect(path for run in runs for path in run.glob("logs/*/metrics.csv"))
    require_file(output)
    logs = {run.name: (run, read_metrics(run)) for run in runs}
    if len(logs) < len(runs):
        raise InputError("two runs have the same name; the last parts of their paths must differ")
    panels = []
    for number in numbers:
        lines = {name: line(rows, number, run) for name, (run, rows) in logs.items()}
        if averaged:
            lines = {name: means(*logged) for name, logged in lines.items()}
        values = np.concatenate([values for _, values in lines.values()])
        if not np.isfinite(values).all():
            raise InputError(f"{number} has values that are not finite and cannot be plotted")
        if number.endswith("accuracy"):
            lines = {name: (epochs, 100 * values) for name, (epochs, values) in lines.items()}
        panels.append(Curves(number, lines, " %" if number.endswith("accuracy") else ""))
    save_figure(curves_sheet(panels, title=title, note=note), output)
