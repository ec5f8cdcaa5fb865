"""A captioner's decoder and the same decoder in tutorial code, with equal weights: training steps and beam search.

The annotation vectors are given, as ResNet-50's would be; the encoder is left out. In training, captions have 8 to 20
words, and a run is several batches, since how captions come together is part of either way: our data puts captions of
one length into a batch, but for few of an epoch's hundreds (`visattn.data.captions`); the tutorials take them as they
come, sort those of a batch by length, and let it shrink as they end. So there are as many captions as fill a batch of
each of a few lengths. Ours on their batches is a row of its own. In decoding no caption ends before the greatest
length, so that both searches go as many steps; all images are searched at once by ours, one by one by theirs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from visattn.decoding import BeamSearch, decode
from visattn.models import LSTMDecoder
from visattn.studies.benchmarks import tutorial
from visattn.studies.benchmarks.arithmetic import PRODUCT, Product, count
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.setting import Setting
from visattn.training.objectives import CaptionLoss
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
        batches: in a run of training; of as many lengths are its captions, from the shortest to the longest.
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
    batches: int = 4
    shortest: int = 8
    longest: int = 20
    beam: int = 5
    alone: int = 2
    product: int = 2048


FULL = Sizes()
QUICK = Sizes(59, 13, (2, 3), 8, batch=4, batches=2, shortest=2, longest=5, beam=2, product=64)


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
    """Random captions (batches · B, 2 + longest) with START and END, then PAD, shuffled; B of each length."""
    generator = torch.Generator().manual_seed(seed)
    count = sizes.batches * sizes.batch
    lengths = torch.linspace(sizes.longest, sizes.shortest, sizes.batches).round().int().repeat(sizes.batch)
    lengths = lengths[torch.randperm(count, generator=generator)]
    tokens = torch.randint(UNKNOWN + 1, sizes.words, (count, sizes.longest + 2), generator=generator)
    tokens[:, 0] = START
    places = torch.arange(sizes.longest + 2) - 1
    tokens[places == lengths.unsqueeze(1)] = END
    return tokens.masked_fill(places > lengths.unsqueeze(1), PAD)


def by_length(tokens: Tensor) -> Tensor:
    """The same captions, the shortest first."""
    return tokens[(tokens != PAD).sum(dim=1).argsort(stable=True)]


def batches(tokens: Tensor, size: int) -> list[Tensor]:
    """Captions as they stand in batches of `size`, each as long as its longest."""
    return [batch[:, : int((batch != PAD).sum(dim=1).max())] for batch in tokens.split(size)]


def training(
    setting: Setting, sizes: Sizes, ours: LSTMDecoder, theirs: tutorial.TutorialDecoder, values: Tensor
) -> Table:
    """Steps over several batches: keys, all words, the loss, backward, Adam."""
    mixed = captions(sizes).to(setting.device)
    objective = CaptionLoss()

    def our_loss(tokens: Tensor) -> Tensor:
        logits, glimpses = ours(ours.prepare(values, sizes.grid), tokens[:, :-1])
        return objective(logits, glimpses, tokens[:, 1:]).loss

    def their_loss(tokens: Tensor) -> Tensor:
        return tutorial.loss(theirs(values, tokens, (tokens != PAD).sum(dim=1)))

    runs = {
        "visattn, batches of one length": _steps(ours, our_loss, batches(by_length(mixed), sizes.batch)),
        "visattn, batches as they come": _steps(ours, our_loss, batches(mixed, sizes.batch)),
        "as the tutorials do": _steps(theirs, their_loss, batches(mixed, sizes.batch)),
    }
    title = f"Training steps of {sizes.batch} captions, {sizes.batches} of them"
    return _compared(setting, sizes, title, "captions/s", runs, dict.fromkeys(runs, (len(mixed), 1.0)))


def decoding(
    setting: Setting, sizes: Sizes, ours: LSTMDecoder, theirs: tutorial.TutorialDecoder, values: Tensor
) -> Table:
    """Beam search."""
    ours.eval(), theirs.eval()
    search = BeamSearch(sizes.beam, length_penalty=0)

    @torch.no_grad()
    def together() -> None:
        decode(ours, ours.prepare(values, sizes.grid), search, sizes.longest)

    @torch.no_grad()
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


def _steps(model: torch.nn.Module, loss: Callable[[Tensor], Tensor], batches: list[Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-5, fused=True)

    def go() -> None:
        for tokens in batches:
            optimizer.zero_grad()
            loss(tokens).backward()
            optimizer.step()

    return go
