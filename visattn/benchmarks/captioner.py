"""A captioner's decoder beside one written as the tutorials do, with the same weights: training step and beam search.

The annotation vectors are given, as ResNet-50's would be; the encoder is left out. Captions have 8 to 20 words in
training. In decoding no caption ends before the greatest length, so that both searches go as many steps; all images are
searched at once by ours, one by one by the tutorial's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from visattn.benchmarks import tutorial
from visattn.benchmarks.arithmetic import PRODUCT, Product, count
from visattn.benchmarks.report import Table
from visattn.benchmarks.setting import Setting
from visattn.decoding import BeamSearch, decode
from visattn.models import LSTMDecoder
from visattn.objectives import CaptionLoss
from visattn.vocabulary import END, PAD, START, UNKNOWN

PACKAGES = ()


class Sizes(NamedTuple):
    """Of the model, and of the work.

    Attributes:
        words: of the vocabulary.
        value: size of an annotation vector.
        grid: of the places.
        hidden: of the LSTM, of word vectors and of the attention's hidden layer.
        batch: images, with a caption each.
        shortest: words of a caption in training, at least.
        longest: at most; and of one that is decoded.
        beam: captions that a search follows.
        alone: images that are searched one by one, since it takes long.
        product: rows of the matrices of which one product tells the machine's rate.
    """

    words: int = 10_000
    value: int = 2048
    grid: tuple[int, int] = (14, 14)
    hidden: int = 512
    batch: int = 32
    shortest: int = 8
    longest: int = 20
    beam: int = 5
    alone: int = 2
    product: int = 2048


FULL = Sizes()
QUICK = Sizes(59, 13, (2, 3), 8, batch=4, shortest=2, longest=5, beam=2, product=64)


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """Training and decoding."""
    torch.manual_seed(0)
    ours = LSTMDecoder(sizes.words, sizes.value, hidden=sizes.hidden, embedding=sizes.hidden)
    theirs = tutorial.TutorialDecoder.of(endless(ours.to(setting.device)))
    values = setting.random(sizes.batch, sizes.grid[0] * sizes.grid[1], sizes.value)
    return [training(setting, sizes, ours, theirs, values), decoding(setting, sizes, ours, theirs, values)]


def endless(decoder: LSTMDecoder) -> LSTMDecoder:
    """The decoder, which now never says what is no word."""
    with torch.no_grad():
        decoder.out.bias[[PAD, START, END, UNKNOWN]] = -1e4
    return decoder


def captions(sizes: Sizes, seed: int = 0) -> Tensor:
    """Random captions (B, 2 + longest) with START and END, then PAD; one of them is as long as any may be."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(sizes.shortest, sizes.longest + 1, (sizes.batch,), generator=generator)
    lengths[0] = sizes.longest
    tokens = torch.randint(UNKNOWN + 1, sizes.words, (sizes.batch, sizes.longest + 2), generator=generator)
    tokens[:, 0] = START
    places = torch.arange(sizes.longest + 2) - 1
    tokens[places == lengths.unsqueeze(1)] = END
    return tokens.masked_fill(places > lengths.unsqueeze(1), PAD)


def training(
    setting: Setting, sizes: Sizes, ours: LSTMDecoder, theirs: tutorial.TutorialDecoder, values: Tensor
) -> Table:
    """A step: keys, all words, the loss, backward, Adam."""
    tokens = captions(sizes).to(setting.device)
    lengths, objective = (tokens != PAD).sum(dim=1), CaptionLoss()

    def our_loss() -> Tensor:
        logits, glimpses = ours(ours.prepare(values, sizes.grid), tokens[:, :-1])
        return objective(logits, glimpses, tokens[:, 1:]).loss

    runs = {
        "visattn": _step(ours.train(), our_loss),
        "as the tutorials do": _step(theirs.train(), lambda: tutorial.loss(theirs(values, tokens, lengths))),
    }
    work = dict.fromkeys(runs, (sizes.batch, 1.0))
    return _compared(setting, sizes, f"Training step of {sizes.batch} captions", "captions/s", runs, work)


def decoding(
    setting: Setting, sizes: Sizes, ours: LSTMDecoder, theirs: tutorial.TutorialDecoder, values: Tensor
) -> Table:
    """Beam search."""
    ours.eval(), theirs.eval()
    search = BeamSearch(sizes.beam, length_penalty=0)

    @torch.inference_mode()
    def together() -> None:
        decode(ours, ours.prepare(values, sizes.grid), search, sizes.longest)

    @torch.inference_mode()
    def one_by_one() -> None:
        for image in values[: sizes.alone].split(1):
            tutorial.beam_search(theirs, image, sizes.beam, sizes.longest)

    title = f"Beam search, {sizes.beam} captions an image, {sizes.longest} words"
    runs = {f"visattn, {sizes.batch} images at once": together, "as the tutorials do": one_by_one}
    work = dict(zip(runs, ((sizes.batch, 1.0), (sizes.alone, sizes.batch / sizes.alone)), strict=True))
    return _compared(setting, sizes, title, "images/s", runs, work)


def _compared(
    setting: Setting,
    sizes: Sizes,
    title: str,
    rate: str,
    runs: dict[str, Callable[[], None]],
    work: dict[str, tuple[int, float]],
) -> Table:
    """Rates, how many times the first is as fast, and what share of the time the arithmetic alone would take."""
    product = Product.of(setting, sizes.product)
    flops = {name: count(run) for name, run in runs.items()}
    times = setting.time(runs | {PRODUCT: product.run})
    first, rows = next(iter(runs)), {}
    for name, (done, times_more) in work.items():
        rows[name] = {
            rate: times.rate(name, done),
            _RATIO: times.ratio(name, first).times(times_more),
            _FLOPS: flops[name] * times_more / 1e9,
            _SHARE: product.share(times, name, flops[name]),
        }
    note = (
        f"The machine's matrix rate, by one product of {sizes.product}×{sizes.product} matrices: "
        f"{times.rate(PRODUCT, product.flops / 1e9):.1f} GFLOPS."
    )
    columns = {rate: ".2f", _RATIO: ".2f", _FLOPS: ".1f", _SHARE: ".0%"}
    return Table(title, "decoder", columns, rows, note)


_RATIO = "time, in visattn's"
_FLOPS = "GFLOP of the products"
_SHARE = "share of the time that these alone would take"


def _step(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def go() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return go
