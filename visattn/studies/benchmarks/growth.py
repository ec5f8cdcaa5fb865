"""Scaling of cost with grid, caption length, beam, batch and resolution, in milliseconds per image."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from visattn.decoding import BeamSearch, decode
from visattn.figures import Curve, Growth, growth_sheet
from visattn.models import Decoder, LSTMDecoder, TransformerDecoder, VisionTransformer
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Run
from visattn.training.objectives import CaptionLoss
from visattn.vocabulary import END, START, UNKNOWN

PACKAGES = ()


class Sizes(NamedTuple):
    """What is varied, each with all else as it is at the place of its default.

    Attributes:
        sides: of a square grid of places.
        lengths: words of a caption in training.
        beams: captions that a search follows.
        batches: images at once, in training and in decoding.
        resolutions: sides of a square image in pixels.
        side: of the grid, where something else is varied.
        length: lengths of captions, in words.
        beam: width of the search, where something else is varied.
        batch: images at once, where something else is varied; Vision Transformers get a quarter.
        words: of the vocabulary.
        value: size of an annotation vector.
        hidden: of the LSTM, of word vectors and of the attention's hidden layer; of the Transformer three quarters.
        patch: of the Vision Transformer.
        size: of its tokens.
        depth: of its layers.
        heads: of its attention.
    """

    sides: Sequence[int] = (5, 7, 10, 14, 20)
    lengths: Sequence[int] = (5, 10, 20, 40)
    beams: Sequence[int] = (1, 2, 5, 10, 20)
    batches: Sequence[int] = (1, 4, 16, 64)
    resolutions: Sequence[int] = (96, 160, 224, 320)
    side: int = 9
    length: int = 15
    beam: int = 5
    batch: int = 16
    words: int = 2550
    value: int = 352
    hidden: int = 512
    patch: int = 16
    size: int = 384
    depth: int = 12
    heads: int = 6


FULL = Sizes()
QUICK = Sizes((2, 3), (2, 3), (1, 2), (1, 2), (8, 12), 2, 3, 2, 4, 40, 12, 16, 4, 12, 2, 3)


class Sweep(NamedTuple):
    """Runs along something that is varied.

    Attributes:
        title: what is run.
        along: what is varied.
        values: of that, N.
        runs: name of a curve -> N runs.
        images: that each of the N takes.
        power: of what is varied with which the work grows, for each image.
    """

    title: str
    along: str
    values: Sequence[int]
    runs: dict[str, list[Run]]
    images: list[int]
    power: float = 1.0

    def time(self, setting: Setting) -> tuple[Growth, Table]:
        """All runs, in turns, as a panel and as a table."""
        flat = {
            f"{name}, {x}": run for name, runs in self.runs.items() for x, run in zip(self.values, runs, strict=True)
        }
        times = setting.time(flat)
        each = {
            name: [
                times.spread(f"{name}, {x}").times(1e3 / images)
                for x, images in zip(self.values, self.images, strict=True)
            ]
            for name in self.runs
        }
        x = np.array(self.values, dtype=float)
        curves = [Curve(name, x, np.array([spread.median for spread in spreads])) for name, spreads in each.items()]
        rows = {f"{x}": {name: spreads[n] for name, spreads in each.items()} for n, x in enumerate(self.values)}
        table = Table(f"{self.title}, milliseconds an image", self.along, dict.fromkeys(self.runs, ".2f"), rows)
        return Growth(self.title, self.along, curves, self.power), table


def measure(setting: Setting, sizes: Sizes = FULL) -> tuple[list[Table], Figure]:
    """A table for each thing that is varied, and all of them drawn."""
    panels, tables = zip(*(sweep.time(setting) for sweep in sweeps(setting, sizes)), strict=True)
    conditions = setting.conditions()
    note = ", ".join(conditions[name] for name in ("device", "threads", "precision", "date"))
    return list(tables), growth_sheet(panels, unit="milliseconds an image", title="How cost grows", note=note)


def sweeps(setting: Setting, sizes: Sizes) -> Iterator[Sweep]:
    """What is run; each sweep's models are let go of before the next one's are made."""
    torch.manual_seed(0)
    size = sizes.hidden * 3 // 4
    decoders: dict[str, Decoder] = {
        "LSTM": LSTMDecoder(sizes.words, sizes.value, hidden=sizes.hidden, embedding=sizes.hidden),
        "Transformer": TransformerDecoder(sizes.words, sizes.value, size=size, layers=2, heads=6),
    }
    for decoder in decoders.values():
        with torch.no_grad():
            decoder.to(setting.device).out.bias[END] = -1e4  # no caption ends before the greatest length

    def sweep(title: str, along: str, make: Callable[..., Run], name: str, values: Sequence[int]) -> Sweep:
        runs = {
            kind: [make(setting, sizes._replace(**{name: value}), decoder) for value in values]
            for kind, decoder in decoders.items()
        }
        shown = [value**2 for value in values] if name == "side" else values
        images = [sizes._replace(**{name: value}).batch for value in values]
        return Sweep(title, along, shown, runs, images, power=0.0 if name == "batch" else 1.0)

    yield sweep("captioner, training step", "places of the grid", _taught, "side", sizes.sides)
    yield sweep("captioner, training step", "words of a caption", _taught, "length", sizes.lengths)
    yield sweep("captioner, training step", "captions in a batch", _taught, "batch", sizes.batches)
    yield sweep("captioner, beam search", "captions that a beam follows", _searched, "beam", sizes.beams)
    yield sweep("captioner, beam search", "images at once", _searched, "batch", sizes.batches)
    yield _resolutions(setting, sizes)


def _taught(setting: Setting, sizes: Sizes, decoder: Decoder) -> Run:
    """Forward and backward pass of a batch."""
    values, grid, objective = setting.random(sizes.batch, sizes.side**2, sizes.value), (sizes.side,) * 2, CaptionLoss()
    tokens = torch.randint(UNKNOWN + 1, sizes.words, (sizes.batch, sizes.length + 2), device=setting.device)
    tokens[:, 0], tokens[:, -1] = START, END

    def go() -> None:
        decoder.train().zero_grad()
        logits, glimpses = decoder(decoder.prepare(values, grid), tokens[:, :-1])
        objective(logits, glimpses, tokens[:, 1:]).loss.backward()

    return go


def _searched(setting: Setting, sizes: Sizes, decoder: Decoder) -> Run:
    """Beam search."""
    values, grid = setting.random(sizes.batch, sizes.side**2, sizes.value), (sizes.side,) * 2

    @torch.no_grad()
    def go() -> None:
        decoder.eval()
        decode(decoder, decoder.prepare(values, grid), BeamSearch(sizes.beam), sizes.length)

    return go


def _resolutions(setting: Setting, sizes: Sizes) -> Sweep:
    """A Vision Transformer: one set of weights, whose positions are interpolated."""
    side, batch = sizes.resolutions[0], max(1, sizes.batch // 4)
    model = VisionTransformer(
        1000, (side, side), patch=sizes.patch, size=sizes.size, depth=sizes.depth, heads=sizes.heads
    ).to(setting.device)
    targets = torch.zeros(batch, dtype=torch.long, device=setting.device)

    def runs(side: int) -> tuple[Run, Run, Run]:
        images = setting.random(batch, 3, side, side)

        def train() -> None:
            model.zero_grad()
            F.cross_entropy(model(images).float(), targets).backward()

        maps, logits = (torch.inference_mode()(partial(run, images)) for run in (model.with_weights, model))
        return train, maps, logits

    each = list(zip(*(runs(side) for side in sizes.resolutions), strict=True))
    names = ("training step", "inference with all maps", "inference")
    named = {name: list(of) for name, of in zip(names, each, strict=True)}
    along, images = "side of the image, pixels", [batch] * len(sizes.resolutions)
    return Sweep("Vision Transformer", along, sizes.resolutions, named, images, power=2.0)
