"""Exposure bias plots: accuracy at each position after the true words and after the captioner's own."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from visattn.overlay.canvas import INK, LEGEND, MARGIN, MUTED, SMALL, TITLE_SIZE, Sheet, flow
from visattn.overlay.style import WORD_SIZE
from visattn.overlay.text import line_height, shorten, text_width, wrap

_TAUGHT, _FREE, _PERSON = "#2a5a8c", "#d2600a", MUTED  # two are apart to colour-blind eyes too, and all in their dashes
_BARS, _GRID, _BASE, _OTHERS = "#eef1f3", "#dde1e5", "#9aa3ab", "#c3cad1"
_DASHED, _DOTTED = (0, (3.2, 1.5)), (0, (1, 1.5))
_NAMES = ("teacher-forced", "free running", "another reference")

# In pixels at DPI; text in points.
_WIDTH = 1800  # of the sheet
_COLUMNS = 4  # models side by side at most
_ACCURACY, _LOSS = 380, 200  # heights of the panels
_GAP, _ROW_GAP, _BLOCK_GAP = 44, 18, 36
_HEAD, _FOOT = 46, 36  # of a panel: for its title and for the numbers under it
_ASIDE = 14  # from a panel to what is written beside it


class Exposure(NamedTuple):
    """One captioner's numbers, (T,) each, by position: 0 is the first word, and the end counts as a token.

    Attributes:
        name: of the captioner.
        note: small, under the name, such as the gap and the scores of both.
        tokens: how many references have a token here.
        loss: of the reference's token after its true words, in nats.
        teacher_forced: share of first choices, after the true words, that are right.
        free_running: share of tokens that are right after the model's own words.
        another_reference: what another person gets; None or NaN if there is none.
    """

    name: str
    note: str
    tokens: np.ndarray
    loss: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    another_reference: np.ndarray | None = None


def exposure_sheet(models: Sequence[Exposure], *, least: float = 0.05, title: str | None = None) -> Figure:
    """Draw accuracy after the true words against accuracy after own words, and the loss; all models on the same scales.

    A single model has its loss beside its accuracy; several stand side by side, each above its loss. The bars behind
    are the share of the references that have a token at a position.

    Args:
        models: see `Exposure`.
        least: a position that a smaller share of the references reach is left out, for few tokens make ragged lines.
        title: a line above all.

    Returns:
        A figure not registered with pyplot; `save_figure` or `encode_figure` turns it into a file.

    Raises:
        ValueError: if there is no model, or if its numbers do not fit each other.
    """
    if not models:
        raise ValueError("there is no model to draw")
    layout = _Layout.of(shown := [_shown(model, least) for model in models])
    header = wrap(title or "", layout.inner, TITLE_SIZE, lines=2)
    legend = flow(_legend(shown, least), layout.inner - layout.ticks)
    blocks = [shown[start : start + layout.columns] for start in range(0, len(shown), layout.columns)]
    heights = [layout.height(block) for block in blocks]
    above = len(header) * line_height(TITLE_SIZE) + (14 if header else 0)
    body = sum(heights) + _BLOCK_GAP * len(blocks)
    sheet = Sheet(_WIDTH, 2 * MARGIN + above + body + LEGEND * len(legend) - 12)
    for n, line in enumerate(header):
        sheet.text(MARGIN, MARGIN + (n + 0.5) * line_height(TITLE_SIZE), line, TITLE_SIZE, INK)
    y = MARGIN + above
    for block, height in zip(blocks, heights, strict=True):
        for column in range(len(block)):
            _draw(sheet, layout, shown, block, column, y)
        y += height + _BLOCK_GAP
    sheet.legend(MARGIN + layout.ticks, y, legend)
    return sheet.figure


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


# ------------------------------------------------------------------------------------------------------------ layout


class _Layout(NamedTuple):
    """In pixels: the columns of panels, all of one width, and what the panels' axes have in common."""

    inner: int
    ticks: int  # for the numbers left of a panel
    names: int  # for the names of the lines, right of the last panel of accuracies
    width: int  # of a panel
    columns: int
    alone: bool
    positions: int
    losses: list[float]  # the numbers on the axis of losses, from 0 to its end

    @classmethod
    def of(cls, models: Sequence[Exposure]) -> "_Layout":
        inner, alone = _WIDTH - 2 * MARGIN, len(models) == 1
        losses = _round_steps(max(model.loss.max() for model in models))
        ticks = _ASIDE + max(text_width(text, SMALL) for text in ("100 %", *(f"{loss:g}" for loss in losses)))
        names = _ASIDE + max(text_width(name, SMALL) for name in _NAMES)
        columns = math.ceil(len(models) / math.ceil(len(models) / _COLUMNS))  # in as few rows as can be, all as long
        if alone:
            width = (inner - 2 * ticks - names - _GAP) // 2
        else:
            width = (inner - ticks - names - (columns - 1) * _GAP) // columns
        positions = max(len(model.tokens) for model in models)
        return cls(inner, ticks, names, width, columns, alone, positions, losses)

    def label(self, model: Exposure) -> list[tuple[str, float, str]]:
        """The lines above a model's panels: text, points, colour."""
        width = self.inner - self.ticks if self.alone else self.width
        lines = [(shorten(model.name, width, WORD_SIZE), WORD_SIZE, INK)]
        return lines + [(line, SMALL, MUTED) for line in wrap(model.note, width, SMALL, lines=3)]

    def above(self, block: Sequence[Exposure]) -> int:
        """The height of a block's names and notes."""
        return max(sum(line_height(size) for _, size, _ in self.label(model)) for model in block)

    def height(self, block: Sequence[Exposure]) -> int:
        """Of a row of models, all in."""
        panels = _ACCURACY if self.alone else _ACCURACY + _FOOT + _ROW_GAP + _HEAD + _LOSS
        return self.above(block) + _HEAD + panels + _FOOT


def _round_steps(highest: float) -> list[float]:
    """From 0 by even round steps, three to six of them, to a number that is no less than `highest`."""
    magnitude = 10.0 ** math.floor(math.log10(highest)) if highest > 0 else 1.0
    step = next(s * magnitude for s in (0.2, 0.5, 1, 2) if s * magnitude * 6 >= highest)
    return [round(n * step, 9) for n in range(max(1, math.ceil(highest / step)) + 1)]


# ---------------------------------------------------------------------------------------------------------- pictures


def _draw(
    sheet: Sheet, layout: _Layout, models: Sequence[Exposure], block: Sequence[Exposure], column: int, y: int
) -> None:
    """The name, accuracy and loss of the model in a block's column, below `y`."""
    model, first, last = block[column], column == 0, column == len(block) - 1
    x, top = MARGIN + layout.ticks + column * (layout.width + _GAP), y
    for line, size, colour in layout.label(model):
        sheet.text(x, top + line_height(size) / 2, line, size, colour)
        top += line_height(size)
    top = y + layout.above(block) + _HEAD
    if first:
        sheet.text(x, top - _HEAD / 2 + 4, "tokens that are right, by position", SMALL, INK)
    shares = {0.0: "0 %", 0.25: "", 0.5: "50 %", 0.75: "", 1.0: "100 %"}
    axes = _panel(sheet, layout, x, top, _ACCURACY, shares, first)
    _draw_accuracy(axes, model)
    if last:
        _name_lines(sheet, model, x + layout.width + _ASIDE, top)
    if layout.alone:
        x, height = x + layout.width + layout.names + _GAP + layout.ticks, _ACCURACY
    else:
        top, height = top + _ACCURACY + _FOOT + _ROW_GAP + _HEAD, _LOSS
    if first:
        sheet.text(x, top - _HEAD / 2 + 4, "loss of the true token after the true words, nats", SMALL, INK)
    axes = _panel(sheet, layout, x, top, height, {loss: f"{loss:g}" for loss in layout.losses}, first)
    for other in models:
        if other is not model:
            _line(axes, other.loss, _OTHERS, width=1.0)
    _line(axes, model.loss, _TAUGHT)


def _panel(sheet: Sheet, layout: _Layout, x: int, y: int, height: int, ticks: dict[float, str], named: bool) -> Axes:
    """An empty panel with its grid; `ticks` are heights and what is written beside them, where `named`."""
    box = x / sheet.width, 1 - (y + height) / sheet.height, layout.width / sheet.width, height / sheet.height
    high = max(ticks)
    axes = sheet.figure.add_axes(box, xlim=(-0.5, layout.positions - 0.5), ylim=(0, high))
    axes.set_axis_off()
    for tick, text in ticks.items():
        axes.axhline(tick, color=_GRID if tick else _BASE, linewidth=0.8, clip_on=False, zorder=1)
        if named and text:
            sheet.text(x - _ASIDE, y + height * (1 - tick / high), text, SMALL, MUTED, align="right")
    pitch = layout.width / layout.positions
    step = next(s for s in (1, 5, 10, 20, 50, 100, 10**9) if s * pitch >= 44)
    for t in range(layout.positions):
        if t == 0 or (t + 1) % step == 0:
            sheet.text(x + (t + 0.5) * pitch, y + height + _FOOT / 2, str(t + 1), SMALL, MUTED, align="center")
    return axes


def _draw_accuracy(axes: Axes, model: Exposure) -> None:
    positions = np.arange(len(model.tokens))
    axes.bar(positions, model.tokens, width=1, color=_BARS, linewidth=0, zorder=0)
    axes.fill_between(positions, model.free_running, model.teacher_forced, color=_FREE, alpha=0.14, linewidth=0)
    _line(axes, model.another_reference, _PERSON, style=_DOTTED, width=1.4)
    _line(axes, model.free_running, _FREE, style=_DASHED)
    _line(axes, model.teacher_forced, _TAUGHT)


def _line(axes: Axes, values: np.ndarray, colour: str, *, style: str | tuple = "-", width: float = 2.0) -> None:
    axes.plot(
        *(np.arange(len(values)), values),
        color=colour,
        linestyle=style,
        linewidth=width,
        marker="o" if len(values) == 1 else None,
        solid_capstyle="round",
        clip_on=False,
        zorder=3,
    )


def _name_lines(sheet: Sheet, model: Exposure, x: int, y: int) -> None:
    """The names of the lines of accuracy, at their ends where these are far enough apart."""
    ends = [
        (y + _ACCURACY * (1 - line[-1]), name, colour)
        for line, name, colour in zip(
            (model.teacher_forced, model.free_running, model.another_reference),
            _NAMES,
            (_TAUGHT, _FREE, _PERSON),
            strict=True,
        )
        if not np.isnan(line[-1])
    ]
    lowest = y + _ACCURACY - 6
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for n, (place, _, _) in enumerate(ends):
        least = places[-1] + line_height(SMALL) if places else y + 6
        most = lowest - (len(ends) - 1 - n) * line_height(SMALL)
        places.append(min(max(place, least), most))
    for place, (_, name, colour) in zip(places, ends, strict=True):
        sheet.text(x, place, name, SMALL, colour)


def _legend(models: Sequence[Exposure], least: float) -> list[list[str | np.ndarray]]:
    """The items that explain the sheet; see `flow`."""
    bars = f"share of the references with a token there; drawn down to {100 * least:g} %"
    items = [[_swatch(22, 22, _BARS), bars]]
    if any(np.isfinite(model.another_reference).any() for model in models):
        items.append(["another reference: a person's caption instead"])
    if len(models) > 1:
        items.append([_swatch(4, 40, _OTHERS), "the other models' loss"])
    return items


def _swatch(height: int, width: int, colour: str) -> np.ndarray:
    """(height, width, 3) uint8 of one colour."""
    return np.full((height, width, 3), np.round(255 * np.array(to_rgb(colour))), dtype=np.uint8)
