"""Accuracy against the mean number of glimpses, by what decides when to stop."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.figures.panels import CONTROL, DASHED, INK, colour, label_axis, laid_out, panels, style, write_legend


class StoppingLine(NamedTuple):
    """A rule of stopping.

    Attributes:
        name: of the rule.
        glimpses: (M,) mean numbers of glimpses.
        accuracy: (M,) from 0 to 1.
        chosen: the point (glimpses, accuracy) at which the model itself stops, if it does.
        control: whether it is what the others are compared with, which is drawn in grey.
    """

    name: str
    glimpses: np.ndarray
    accuracy: np.ndarray
    chosen: tuple[float, float] | None = None
    control: bool = False


def stopping_sheet(lines: Sequence[StoppingLine], *, title: str = "", note: str = "") -> Figure:
    """Draw accuracy over the mean number of glimpses; a diamond is where a model stops by itself.

    Args:
        lines: at least one.
        title: above the panel.
        note: below the panel, small.

    Raises:
        ValueError: if there is no line, or its numbers do not match or are not finite.
    """
    if not lines:
        raise ValueError("there is nothing to draw")
    for line in lines:
        same = line.glimpses.shape == line.accuracy.shape
        if not same or not np.isfinite([line.glimpses, line.accuracy]).all():
            raise ValueError(f"the line of '{line.name}' must have as many finite accuracies as numbers of glimpses")
    figure, [(axes, key)] = panels(1, 1, 3.6, len(lines), title, note)
    style(axes, along="mean number of glimpses")
    drawn, number = [], 0
    for line in lines:
        ink = CONTROL if line.control else colour(number)
        look = {"marker": "o", "markersize": 5} if line.control else {"linestyle": ("-", DASHED)[number % 2]}
        number += not line.control
        drawn += axes.plot(line.glimpses, line.accuracy, color=ink, linewidth=2.0, zorder=3, **look)
        if line.chosen is not None:
            axes.plot(*line.chosen, marker="D", markersize=8, color=ink, markeredgecolor=INK, zorder=4)
    label_axis(axes, "accuracy")
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}%")
    write_legend(key, drawn, [line.name for line in lines])
    return laid_out(figure)
