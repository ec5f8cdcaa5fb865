"""Training curves: one panel per metric, one line per run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.figures.panels import colour, laid_out, panels, stroke, style, write_legend

_COLUMNS = 3


class Curves(NamedTuple):
    """A metric of every run.

    Attributes:
        name: of the metric.
        lines: (K,) epochs, or what `along` says, and (K,) values by the run's name.
        unit: written after every value, such as "%".
        along: what is counted on the horizontal axis.
    """

    name: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    unit: str = ""
    along: str = "epoch"


def curves_sheet(metrics: Sequence[Curves], *, title: str = "", note: str = "") -> Figure:
    """Draw a panel per metric, with the same end of the same kind of axis; the legend gives each run's last value.

    Metrics that are drawn along several things have a row for each of these, and legends in the last row.

    Args:
        metrics: at least one, all with lines.
        title: above the panels.
        note: below the panels, small.

    Raises:
        ValueError: if there is nothing to draw, or a line has not as many finite values as epochs.
    """
    for metric in metrics:
        for run, (epochs, values) in metric.lines.items():
            if np.shape(epochs) != np.shape(values) or not np.isfinite([epochs, values]).all() or not len(values):
                raise ValueError(f"the line of '{run}' in '{metric.name}' must have as many finite values as epochs")
    if not metrics or not all(metric.lines for metric in metrics):
        raise ValueError("there is nothing to draw")
    runs = list(dict.fromkeys(run for metric in metrics for run in metric.lines))
    ends = {
        along: max(float(x.max()) for metric in metrics if metric.along == along for x, _ in metric.lines.values())
        for along in {metric.along for metric in metrics}
    }
    columns = len({metric.name for metric in metrics})
    again = len(metrics) == columns * len(ends) and len(ends) > 1 and columns <= _COLUMNS
    figure, places = panels(
        *(len(metrics), columns if again else _COLUMNS, 3.0, max(len(metric.lines) for metric in metrics)),
        *(title, note, "last row" if again else "every row"),
    )
    for n, (metric, (axes, key)) in enumerate(zip(metrics, places, strict=True)):
        style(axes, metric.name, metric.along)
        lines = []
        for run, (epochs, values) in metric.lines.items():
            k = runs.index(run)
            alone = "o" if len(values) == 1 else None  # a line through one point is not seen
            lines += axes.plot(
                *(epochs, values), color=colour(k), linestyle=stroke(k), linewidth=2, marker=alone, clip_on=not alone
            )
        if all((values >= 0).all() for _, values in metric.lines.values()):
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        axes.set_xlim(0, ends[metric.along])
        axes.yaxis.set_major_formatter(f"{{x:g}}{metric.unit}")
        last = [f"{run}: {values[-1]:.3g}{metric.unit}" for run, (_, values) in metric.lines.items()]
        if not again or n >= len(metrics) - columns:
            write_legend(key, lines, last)
    return laid_out(figure)
