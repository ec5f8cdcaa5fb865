"""Accuracy against the length of sequences: a panel for each task, a line for each mechanism."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from visattn.figures.panels import CONTROL, DASHED, DOTTED, colour, laid_out, panels, style, write_legend

_TRAINED = "#f0f2f4"  # lengths that occur in training


class LengthLine(NamedTuple):
    """A mechanism's accuracy at each length.

    Attributes:
        name: of the mechanism.
        accuracy: (N,) mean over runs, from 0 to 1.
        low: (N,) of the worst run.
        high: (N,) of the best run.
        control: whether it is a baseline without attention, and is drawn in grey.
    """

    name: str
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    control: bool = False


class Lengths(NamedTuple):
    """A panel: one task.

    Attributes:
        title: of the task.
        lengths: (N,) lengths of sequences, ascending.
        trained: least and greatest length in training.
        lines: at least one.
    """

    title: str
    lengths: Sequence[int]
    trained: tuple[int, int]
    lines: Sequence[LengthLine]


def lengths_sheet(tasks: Sequence[Lengths], *, title: str = "", note: str = "") -> Figure:
    """Draw accuracy over length; the lengths of training are shaded, bars span the runs.

    The legend gives each accuracy at the greatest length of training that was measured, and at the last.

    Args:
        tasks: see `Lengths`.
        title: above the panels.
        note: below the panels, small.

    Raises:
        ValueError: if there is nothing to draw, or numbers do not match or are not finite.
    """
    _check(tasks)
    lines = [line for task in tasks for line in task.lines]  # a mechanism has the same colour in all panels
    names = {kind: list(dict.fromkeys(n.name for n in lines if n.control == kind)) for kind in (True, False)}
    figure, places = panels(len(tasks), 2, 3.1, max(len(task.lines) for task in tasks), title, note)
    for task, (axes, key) in zip(tasks, places, strict=True):
        style(axes, task.title, "length of the sequence")
        axes.axvspan(*task.trained, color=_TRAINED, zorder=0)
        drawn = []
        for line in task.lines:
            number = names[line.control].index(line.name)
            look = {"color": colour(number), "linewidth": 2.0, "zorder": 3}
            if line.control:
                look |= {"color": CONTROL, "linestyle": (DASHED, DOTTED)[number % 2]}
            drawn += axes.plot(task.lengths, line.accuracy, marker="o", markersize=4.5, clip_on=False, **look)
            axes.vlines(task.lengths, line.low, line.high, color=look["color"], linewidth=1.0)
        axes.set(ylim=(0, 1), xlim=(0, max(task.lengths) + 1))
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}%")
        axes.xaxis.set_major_locator(FixedLocator(task.lengths))
        axes.xaxis.set_minor_locator(NullLocator())
        write_legend(key, drawn, [_entry(task, line) for line in task.lines])
    return laid_out(figure)


def _entry(task: Lengths, line: LengthLine) -> str:
    within = [n for n, length in enumerate(task.lengths) if length <= task.trained[1]]
    shown = dict.fromkeys([*within[-1:], len(task.lengths) - 1])
    return f"{line.name}: " + ", ".join(f"{100 * line.accuracy[n]:.0f}% at {task.lengths[n]}" for n in shown)


def _check(tasks: Sequence[Lengths]) -> None:
    if not tasks or not all(task.lines for task in tasks):
        raise ValueError("there is nothing to draw: every panel needs a line")
    for task in tasks:
        if not (np.diff(task.lengths) > 0).all():
            raise ValueError(f"the lengths of '{task.title}' must be ascending")
        for line in task.lines:
            if any(np.shape(part) != (len(task.lengths),) or not np.isfinite(part).all() for part in line[1:4]):
                raise ValueError(f"'{line.name}' of '{task.title}' must have a finite accuracy for each length")
