"""Estimators of a gradient: bias and variance of each, one row of panels per decoder."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visattn.figures.panels import COLOURS, CONTROL, laid_out, new_figure, style
from visattn.overlay.text import clean

_ROW = 0.27  # inches
_LINEAR = 0.1  # biases below are drawn on a linear scale, larger ones on a logarithmic one


class Estimates(NamedTuple):
    """The estimators of one decoder's gradient.

    Attributes:
        name: above the panels.
        rows: name and numbers of each: `bias`, `bias_error`, `variance`, `passes`, `unbiased`.
    """

    name: str
    rows: Sequence[tuple[str, Mapping[str, float]]]


def estimates_sheet(stages: Sequence[Estimates], *, title: str = "", note: str = "") -> Figure:
    """Draw the bias of each estimator on the left, with two standard errors, and variance × passes on the right.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not stages or not all(stage.rows for stage in stages):
        raise ValueError("there is nothing to draw")
    heights = [_ROW * len(stage.rows) for stage in stages]
    figure = new_figure(sum(heights) + 0.95 * len(stages), title, note)
    grid = figure.subplots(len(stages), 2, squeeze=False, height_ratios=heights)
    for stage, (left, right) in zip(stages, grid, strict=True):
        style(left, stage.name, "bias along the exact gradient, relative to it; bars: ± 2 standard errors")
        style(right, "", "variance × decoder passes, relative to the squared exact gradient")
        left.set_xscale("symlog", linthresh=_LINEAR)
        left.axvline(0, color=CONTROL, linewidth=1)
        right.set_xscale("log")
        for axes in (left, right):
            _name_rows(axes, [name for name, _ in stage.rows], shown=axes is left)
        for height, (_, row) in enumerate(stage.rows):
            tint = COLOURS[0] if row["unbiased"] else COLOURS[1]
            bar = row["bias"] + 2 * row["bias_error"] * np.array([-1, 1])
            left.plot(bar, [height, height], color=tint, linewidth=1.6, alpha=0.55, solid_capstyle="round")
            for axes, value in ((left, row["bias"]), (right, row["variance"] * row["passes"])):
                axes.plot([value], [height], "o", color=tint, markersize=6)
    return laid_out(figure)


def _name_rows(axes: Axes, names: Sequence[str], shown: bool) -> None:
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [clean(name) for name in names] if shown else [""] * len(names))
