"""Share of the reward in a step of self-critical training, at the sizes of Flickr8k.

The decoder has random weights, but says words as often as a language does; every image's captions have the greatest
length. A step is sampling, reward, loss, backward and Adam; the encoder is left out.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch

from visattn.data.batch import CaptionBatch
from visattn.metrics import CiderReward
from visattn.models import LSTMDecoder
from visattn.studies.benchmarks.report import Table
from visattn.studies.benchmarks.sentences import sentences, zipf
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Spread
from visattn.training.objectives import CaptionLoss
from visattn.training.regimes import SelfCritical
from visattn.vocabulary import END, SPECIALS, UNKNOWN, Vocabulary

PACKAGES = ()


class Sizes(NamedTuple):
    """Of the data, the model and a batch.

    Attributes:
        images: of the training set.
        each: references of an image.
        words: of the vocabulary.
        value: size of an annotation vector.
        grid: of the places.
        hidden: of the LSTM, of word vectors and of the attention's hidden layer.
        batch: images.
        samples: captions drawn for each image of a batch.
        longest: words of a caption.
    """

    images: int = 6000
    each: int = 5
    words: int = 2550
    value: int = 352
    grid: tuple[int, int] = (9, 9)
    hidden: int = 512
    batch: int = 64
    samples: int = 5
    longest: int = 20


FULL = Sizes()
QUICK = Sizes(images=13, each=3, words=50, value=12, grid=(2, 3), hidden=8, batch=4, samples=2, longest=5)


class Timed:
    """A reward that says how long its calls took."""

    def __init__(self, reward: CiderReward) -> None:
        self.reward, self.seconds = reward, []

    def __call__(self, *given: Any) -> np.ndarray:
        """The rewards."""
        start = time.perf_counter()
        rewards = self.reward(*given)
        self.seconds.append(time.perf_counter() - start)
        return rewards


def measure(setting: Setting, sizes: Sizes = FULL) -> list[Table]:
    """One table."""
    torch.manual_seed(0)
    vocabulary = Vocabulary([*SPECIALS, *(f"w{n}" for n in range(sizes.words - len(SPECIALS)))])
    references = sentences(sizes.images, sizes.each, vocabulary.words[len(SPECIALS) :]).references
    decoder = LSTMDecoder(sizes.words, sizes.value, hidden=sizes.hidden, embedding=sizes.hidden).to(setting.device)
    with torch.no_grad():
        decoder.out.bias[UNKNOWN + 1 :] = torch.from_numpy(zipf(sizes.words - len(SPECIALS))).log()
        decoder.out.bias[END] = -1e4
    regime = SelfCritical(sizes.samples)
    regime.begin(references, vocabulary, sizes.longest)
    regime.reward = timed = Timed(regime.reward)
    values = setting.random(sizes.batch, sizes.grid[0] * sizes.grid[1], sizes.value)
    owner = torch.arange(sizes.batch, device=setting.device)
    batch = CaptionBatch(None, values, owner, owner.unsqueeze(1), list(references)[: sizes.batch])
    optimizer, objective = torch.optim.Adam(decoder.parameters(), lr=1e-6), CaptionLoss()

    def step() -> None:
        optimizer.zero_grad()
        memory = decoder.prepare(values, sizes.grid)
        regime.teach(decoder, memory, batch, objective, 0).loss.backward()
        optimizer.step()

    times = setting.time({"step": step})
    rewards = timed.seconds[1:]  # the first warmed up
    shares = Spread.of(own / whole for own, whole in zip(rewards, times.seconds["step"], strict=True))
    count = sizes.batch * sizes.samples
    columns = {"ms": ".1f", "captions/s": ".0f", "share of the step": ".1%"}
    rows = {
        "whole step": {"ms": times.spread("step").times(1e3), "captions/s": times.rate("step", count)},
        "reward, CIDEr-D": {
            "ms": Spread.of(rewards).times(1e3),
            "captions/s": Spread.of(count / seconds for seconds in rewards),
            "share of the step": shares,
        },
    }
    title = f"Self-critical step, {sizes.batch} images, {sizes.samples} samples each"
    return [Table(title, "what", columns, rows)]
