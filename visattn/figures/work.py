"""Accuracy against work: a line for each model, a point for each glimpse."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from visattn.figures.panels import colour, laid_out, panels, style, write_legend


class Line(NamedTuple):
    """A model's accuracy after each glimpse.

    Attributes:
        name: of the model.
        work: (T,) multiply-adds, ascending, positive.
        accuracy: (T,) mean over runs, from 0 to 1.
        low: (T,) of the worst run.
        high: (T,) of the best run.
        read: numbers read in the end, as a share of the picture's pixels.
    """

    name: str
    work: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    read: float


def work_sheet(lines: Sequence[Line], *, title: str = "", note: str = "") -> Figure:
    """Draw accuracy over the multiply-adds of one picture, on a logarithmic axis; bars span the runs.

    Args:
        lines: at least one.
        title: above the panel.
        note: below the panel, small.

    Raises:
        ValueError: if there is no line, or a line's numbers do not match, are not finite, or its work is not positive.
    """
    for line in lines:
        parts = np.stack(np.broadcast_arrays(*map(np.asarray, line[1:5])))
        if not np.isfinite(parts).all() or (parts[0] <= 0).any() or not len(line.work):
            raise ValueError(f"the line of '{line.name}' must have finite accuracies and work above 0")
    if not lines:
        raise ValueError("there is nothing to draw")
    figure, [(axes, key)] = panels(1, 1, 3.9, len(lines), title, note)
    style(axes, along="multiply-adds for one picture")
    axes.set_xscale("log")
    drawn = []
    for number, line in enumerate(lines):
        look = {"color": colour(number), "linewidth": 2.0, "marker": "o", "markersize": 5, "clip_on": False}
        drawn += axes.plot(line.work, line.accuracy, zorder=3, **look)
        axes.vlines(line.work, line.low, line.high, color=colour(number), linewidth=1.0)
    axes.set_ylim(np.floor(10 * min(min(line.low) for line in lines)) / 10, 1)
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}%")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
    read = [f"reads {_percent(line.read)} as many numbers as pixels" for line in lines]
    shown = [f"{line.name}: {100 * line.accuracy[-1]:.1f}%, {part}" for line, part in zip(lines, read, strict=True)]
    write_legend(key, drawn, shown)
    return laid_out(figure)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1f}%"
