"""Beam search over a batch of images and over one image at a time, with the same decoder and annotation vectors.

The encoder is left out. Beside the ratio stands what the arithmetic alone would give: how much faster the decoder's
linear layers are for the beams of all images than for those of one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visattn.decoding import BeamSearch, decode
from visattn.models import Decoder, LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Spread

PACKAGES = ()


class Case(NamedTuple):
    """A decoder in evaluation mode, and its memory."""

    name: str
    decoder: Decoder
    value: int
    grid: tuple[int, int]


class Sizes(NamedTuple):
    """Of the work.

    Attributes:
        images: searched at once; one in eight of them is searched alone.
        beam: captions that a search follows.
        longest: words of a caption.
    """

    images: int = 64
    beam: int = 5
    longest: int = 20


FULL, QUICK = Sizes(), Sizes(images=8, beam=2, longest=3)


def cases() -> Iterable[Case]:
    """Decoders with random weights, of which hardly any caption ends before the greatest length."""
    yield Case("LSTM, Shapes' sizes", LSTMDecoder(60, 64, hidden=160, embedding=96).eval(), 64, (8, 8))
    yield Case("LSTM, Flickr8k's sizes", LSTMDecoder(2550, 352).eval(), 352, (9, 9))
    yield Case("LSTM in Luong's order", LuongDecoder(2550, 352).eval(), 352, (9, 9))
    yield Case("LSTM, 14×14 places, 10,000 words", LSTMDecoder(10_000, 512).eval(), 512, (14, 14))
    transformer = TransformerDecoder(2550, 352, size=384, layers=2, heads=6)
    yield Case("Transformer, Flickr8k's sizes", transformer.eval(), 352, (9, 9))


def measure(setting: Setting, sizes: Sizes = FULL, decoders: Iterable[Case] | None = None) -> list[Table]:
    """One table, a row for each decoder; of a trained one the annotation vectors are random, too."""
    together = f"{sizes.images} images at once, images/s"
    columns = {together: ".1f", "one by one, images/s": ".1f", "ratio": ".1f", "linear layers alone": ".1f"}
    rows = {}
    for name, decoder, value, grid in cases() if decoders is None else decoders:
        values = setting.random(sizes.images, grid[0] * grid[1], value)
        numbers = _row(setting, sizes, decoder.to(setting.device), values, grid)
        rows[name] = dict(zip(columns, numbers, strict=True))
    return [Table(f"Beam search, {sizes.beam} captions an image, {sizes.longest} words", "decoder", columns, rows)]


def _row(
    setting: Setting, sizes: Sizes, decoder: Decoder, values: Tensor, grid: tuple[int, int]
) -> tuple[Spread, Spread, Spread, Spread]:
    search, alone = BeamSearch(sizes.beam), values[::8].split(1)
    layers = [module for module in decoder.modules() if isinstance(module, nn.Linear)]

    @torch.no_grad()
    def searched(parts: Iterable[Tensor]) -> None:
        for part in parts:
            decode(decoder, decoder.prepare(part, grid), search, sizes.longest)

    @torch.no_grad()
    def multiplied(rows: int) -> None:
        for layer in layers:
            layer(torch.zeros(rows, layer.in_features, device=setting.device))

    runs = {
        "together": lambda: searched([values]),
        "one by one": lambda: searched(alone),
        "layers together": lambda: multiplied(sizes.images * sizes.beam),
        "layers one by one": lambda: multiplied(sizes.beam),
    }
    times = setting.time(runs)
    ratio, layers_ratio = times.ratio("one by one", "together"), times.ratio("layers one by one", "layers together")
    return (
        times.rate("together", sizes.images),
        times.rate("one by one", len(alone)),
        ratio.times(sizes.images / len(alone)),
        layers_ratio.times(sizes.images),
    )
