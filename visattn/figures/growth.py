"""Scaling plots: cost against problem size, as panels with common logarithmic axes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from visattn.figures.panels import CONTROL, DOTTED, colour, laid_out, panels, style, write_legend


class Curve(NamedTuple):
    """A cost as a function of a size.

    Attributes:
        name: of what is measured.
        x: (N,) sizes, ascending, positive.
        y: (N,) costs, positive.
    """

    name: str
    x: np.ndarray
    y: np.ndarray


class Growth(NamedTuple):
    """A panel: curves over the same sizes.

    Attributes:
        title: what is measured.
        along: the size on the horizontal axis.
        curves: at least one; all have the same x.
        power: the power of x that proportional cost has: 2 if x is a side and the work grows with the area, 0 if x is
            a number of items and costs are per item.
    """

    title: str
    along: str
    curves: Sequence[Curve]
    power: float = 1.0


def growth_sheet(growths: Sequence[Growth], *, unit: str, title: str = "", note: str = "") -> Figure:
    """Draw how costs grow, one panel per size, with the same vertical axis in all.

    A dotted line continues proportionally from the first point of the first curve. The legend gives each curve's first
    and last cost.

    Args:
        growths: see `Growth`.
        unit: of the costs.
        title: above the panels.
        note: below the panels, small, after the explanation of the dotted line.

    Raises:
        ValueError: if there is no panel or no curve, or numbers cannot be drawn.
    """
    _check(growths)
    costs = np.concatenate([curve.y for growth in growths for curve in growth.curves])
    low, high = math.floor(math.log10(costs.min())), math.ceil(math.log10(costs.max()))
    note = f"{unit}; dotted: in proportion. {note}".strip()
    figure, places = panels(len(growths), 3, 1.9, max(len(growth.curves) for growth in growths), title, note)
    for growth, (axes, key) in zip(growths, places, strict=True):
        first = growth.curves[0]
        axes.set(xscale="log", yscale="log", ylim=(10.0**low, 10.0 ** max(high, low + 1)))
        style(axes, growth.title, growth.along)
        axes.plot(first.x, first.y[0] * (first.x / first.x[0]) ** growth.power, color=CONTROL, linestyle=DOTTED)
        look = {"linewidth": 2.2, "marker": "o", "markersize": 4.5, "clip_on": False}
        lines = [axes.plot(c.x, c.y, color=colour(number), **look)[0] for number, c in enumerate(growth.curves)]
        if len(first.x) > 1:
            axes.set_xlim(first.x[0], first.x[-1])
        axes.set_xticks(first.x, [f"{value:g}" for value in first.x])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        write_legend(key, lines, [f"{c.name}: {_number(c.y[0])} → {_number(c.y[-1])}" for c in growth.curves])
    return laid_out(figure)


def _check(growths: Sequence[Growth]) -> None:
    if not growths or not all(growth.curves for growth in growths):
        raise ValueError("there is nothing to draw: every panel needs a curve")
    for growth in growths:
        first = growth.curves[0].x
        for curve in growth.curves:
            if not np.array_equal(curve.x, first) or curve.y.shape != first.shape:
                raise ValueError(f"the curves of '{growth.title}' must have the same x, and a y for each")
            if not (np.isfinite(curve.y).all() and (curve.y > 0).all() and (curve.x > 0).all()):
                raise ValueError(f"'{curve.name}' of '{growth.title}' must have finite numbers greater than 0")
            if not (np.diff(curve.x) > 0).all():
                raise ValueError(f"the x of '{growth.title}' must be ascending")


def _number(cost: float) -> str:
    """A cost with at least two significant digits."""
    return f"{cost:.0f}" if cost >= 10 else f"{cost:.2g}"
