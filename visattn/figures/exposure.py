"""Exposure bias plots: accuracy at each position after the true words and after the captioner's own words."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from visattn.figures.panels import (
    COLOURS,
    DASHED,
    DOTTED,
    label_axis,
    laid_out,
    new_figure,
    style,
    write_figure_legend,
)
from visattn.overlay.canvas import MUTED

_COLUMNS = 4
_LINES = {  # colour-blind readers can also tell them apart by their dashes
    "teacher_forced": ("teacher-forced", COLOURS[0], "-", 2.0),
    "free_running": ("free running", COLOURS[1], DASHED, 2.0),
    "another_reference": ("another reference: a person's caption instead", MUTED, DOTTED, 1.4),
}
_BARS, _OTHERS = "#eef1f3", "#c3cad1"


class Exposure(NamedTuple):
    """A captioner's numbers, (T,) each, by position: 0 is the first word, and the end counts as a token.

    Attributes:
        name: of the captioner.
        note: below its panel, small, such as its gap and scores.
        tokens: how many references have a token at the position.
        loss: of the reference's token after its true words, in nats.
        teacher_forced: accuracy of the likeliest token after the true words.
        free_running: accuracy of the tokens after the model's own words.
        another_reference: accuracy of another person's caption; None or NaN if there is none.
    """

    name: str
    note: str
    tokens: np.ndarray
    loss: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    another_reference: np.ndarray | None = None


def exposure_sheet(models: Sequence[Exposure], *, least: float = 0.05, title: str = "") -> Figure:
    """Draw accuracy after the true words and after own words, and the loss, with the same axes for all models.

    A single model has its loss beside its accuracy, several have it below. Bars show the share of the references that
    have a token at a position.

    Args:
        models: see `Exposure`.
        least: positions that a smaller share of the references reach are left out, as few tokens make ragged lines.
        title: above the panels.

    Raises:
        ValueError: if there is no model, or its numbers do not match.
    """
    if not models:
        raise ValueError("there is no model to draw")
    shown = [_shown(model, least) for model in models]
    blocks = math.ceil(len(shown) / _COLUMNS)
    columns = math.ceil(len(shown) / blocks)
    figure = new_figure(4.2 if len(shown) == 1 else blocks * 5.6 + 0.4, title)
    if len(shown) == 1:
        accuracies, losses = figure.subplots(1, 2, squeeze=False).T
    else:
        grid = figure.subplots(2 * blocks, columns, squeeze=False, height_ratios=[3, 2] * blocks)
        accuracies, losses = grid[::2].flat, grid[1::2].flat
    positions, highest = max(len(m.tokens) for m in shown), max(float(m.loss.max()) for m in shown)
    for number, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True)):
        if number >= len(shown):
            accuracy.set_axis_off()
            loss.set_axis_off()
            continue
        model = shown[number]
        _draw_accuracy(accuracy, model)
        style(loss, "" if len(shown) > 1 else " ", "position")
        for other in shown:
            if other is not model:
                _line(loss, other.loss, _OTHERS, "-", 1.0)
        _line(loss, model.loss, *_LINES["teacher_forced"][1:])
        loss.set_ylim(0, 1.05 * highest or 1)
        if number % columns == 0:
            label_axis(accuracy, "correct tokens")
            label_axis(loss, "loss of the true token, nats")
        for axes in (accuracy, loss):
            axes.set_xlim(0.5, positions + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _write_legend(figure, shown, least)
    return laid_out(figure)


def _shown(model: Exposure, least: float) -> Exposure:
    """The model's numbers at the positions that are drawn, as arrays of floats."""
    tokens = np.asarray(model.tokens, dtype=float)
    if tokens.ndim != 1 or not tokens.size or not tokens[0] > 0:
        raise ValueError(f"the tokens of '{model.name}' must be (T,), some of them at the first position")
    reached = tokens >= max(1, least * tokens[0])
    count = len(tokens) if reached.all() else int(reached.argmin())
    if not count:
        raise ValueError(f"least is {least}; it must be a share, from 0 to 1")
    parts = {"tokens": tokens[:count] / tokens[0]}
    for name, highest in (("loss", np.inf), ("teacher_forced", 1), ("free_running", 1), ("another_reference", 1)):
        given = getattr(model, name)
        part = np.full(len(tokens), np.nan) if given is None else np.asarray(given, dtype=float)
        if part.shape != tokens.shape:
            raise ValueError(f"{name} of '{model.name}' must be (T,) = {tokens.shape}, and is {part.shape}")
        part = parts[name] = part[:count]
        unknown = np.isnan(part) if name == "another_reference" else False
        if not ((part >= 0) & (part <= highest) & np.isfinite(part) | unknown).all():
            raise ValueError(f"{name} of '{model.name}' must lie between 0 and {highest}")
    return model._replace(**parts)


def _draw_accuracy(axes: Axes, model: Exposure) -> None:
    style(axes, model.name, model.note)
    positions = np.arange(1, len(model.tokens) + 1)
    axes.bar(positions, model.tokens, width=1, color=_BARS, linewidth=0, zorder=0)
    axes.fill_between(positions, model.free_running, model.teacher_forced, color=COLOURS[1], alpha=0.14, linewidth=0)
    for name, (_, *look) in reversed(_LINES.items()):
        _line(axes, getattr(model, name), *look)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}%")


def _line(axes: Axes, values: np.ndarray, colour: str, dashes: str | tuple, width: float) -> None:
    marker = "o" if len(values) == 1 else None
    positions = np.arange(1, len(values) + 1)
    axes.plot(positions, values, color=colour, linestyle=dashes, linewidth=width, marker=marker, zorder=3)


def _write_legend(figure: Figure, models: Sequence[Exposure], least: float) -> None:
    with_person = any(np.isfinite(model.another_reference).any() for model in models)
    entries = [
        (Line2D([], [], color=colour, linestyle=dashes, linewidth=width), label)
        for name, (label, colour, dashes, width) in _LINES.items()
        if name != "another_reference" or with_person
    ]
    entries.append((Patch(color=_BARS), f"references with a token there; drawn down to {100 * least:g}%"))
    if len(models) > 1:
        entries.append((Line2D([], [], color=_OTHERS), "the other models' loss"))
    write_figure_legend(figure, *zip(*entries, strict=True))
