"""Deletion and insertion plots: a model's output while the image is removed or restored."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.figures.panels import CONTROL, DASHED, DOTTED, colour, laid_out, minus, panels, style, write_legend

_LINES = {"map": "-", "random": DOTTED, "centre": DASHED}
_TITLES = ("deletion: lower is better", "insertion: higher is better")
_AXES = ("share of the image removed", "share of the image restored")


class Faithfulness(NamedTuple):
    """The curves of a map.

    Attributes:
        name: of the map.
        curves: (2, K + 1) deletion and insertion.
        areas: under both curves, in their unit.
        kind: "map", or a baseline, "random" or "centre", which is drawn in grey.
        spread: (2, K + 1) the standard deviation around the curves, such as that of several random maps; or None.
    """

    name: str
    curves: np.ndarray
    areas: tuple[float, float]
    kind: str = "map"
    spread: np.ndarray | None = None


def faithfulness_sheet(
    maps: Sequence[Faithfulness], share: np.ndarray, *, unit: str, title: str = "", note: str = ""
) -> Figure:
    """Draw deletion beside insertion on the same scale; the legend gives the area under each curve.

    Args:
        maps: see `Faithfulness`; the first is drawn on top.
        share: (K + 1,) of the image, from 0 to 1.
        unit: of the curves, such as "probability of the class"; probabilities are drawn from 0 to 1.
        title: above the panels.
        note: below the panels, small: the conditions.

    Raises:
        ValueError: if there is no map, or numbers do not match or are not finite.
    """
    _check(maps, share)
    note = f"In the legend: area under the curve, mean {unit}. {note}".strip()
    figure, places = panels(2, 2, 2.9, len(maps), title, note)
    colours, count = [], 0
    for drawn in maps:
        colours.append(colour(count) if drawn.kind == "map" else CONTROL)
        count += drawn.kind == "map"
    for way, (axes, key) in enumerate(places):
        style(axes, _TITLES[way], _AXES[way])
        lines = []
        for number, drawn in enumerate(maps):
            look = {"color": colours[number], "zorder": 3 + len(maps) - number}
            if drawn.spread is not None:
                around = drawn.curves[way] - drawn.spread[way], drawn.curves[way] + drawn.spread[way]
                axes.fill_between(share, *around, color=colours[number], alpha=0.25, linewidth=0, zorder=2)
            width = 2.2 if drawn.kind == "map" else 1.8
            lines += axes.plot(share, drawn.curves[way], linestyle=_LINES[drawn.kind], linewidth=width, **look)
        axes.set(xlim=(0, 1), ylim=_limits(maps))
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}%")
        axes.yaxis.set_major_formatter(lambda y, _: minus(f"{y:g}"))
        write_legend(key, lines, [f"{drawn.name}: {minus(f'{drawn.areas[way]:.3f}')}" for drawn in maps])
    return laid_out(figure)


def _limits(maps: Sequence[Faithfulness]) -> tuple[float, float]:
    curves = np.concatenate([drawn.curves for drawn in maps])
    low, high = float(curves.min()), float(curves.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low - 0.03 * (max(high, 0) - low), max(high, 0.0))


def _check(maps: Sequence[Faithfulness], share: np.ndarray) -> None:
    if not maps:
        raise ValueError("there is no map to draw")
    for drawn in maps:
        if drawn.kind not in _LINES:
            raise ValueError(f"'{drawn.name}' is of kind '{drawn.kind}', not one of {', '.join(_LINES)}")
        for part in (drawn.curves, drawn.spread):
            if part is not None and (np.shape(part) != (2, len(share)) or not np.isfinite(part).all()):
                raise ValueError(f"the curves of '{drawn.name}' must be (2, {len(share)}) finite numbers")
