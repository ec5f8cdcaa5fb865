"""Learning curves of gradient estimators on the small task of `visattn.studies.estimators`, in steps and in time."""

import time
from typing import NamedTuple

import numpy as np
import torch

from visattn.models import LuongDecoder
from visattn.studies.estimators import (
    GRID,
    LEARNING_RATE,
    Method,
    Scenes,
    loss_of,
    make_decoder,
    make_scenes,
    objective,
    pointing,
)

BATCH, UNSEEN, EVERY = 32, 503, 10  # scenes of a step, scenes to measure on, steps between measurements


class Progress(NamedTuple):
    """A training, measured M times on unseen scenes.

    Attributes:
        steps: (M,) of training, ascending from 0.
        seconds: (M,) of the process's time, without that of measuring.
        pointing: (M,) mean α of the true places.
        right: (M,) share of captions with every word right, places as in evaluation.
    """

    steps: np.ndarray
    seconds: np.ndarray
    pointing: np.ndarray
    right: np.ndarray

    def at(self, name: str, along: str, x: np.ndarray | float) -> np.ndarray:
        """The curve `name` at values of "steps" or "seconds", between measurements in proportion."""
        return np.interp(x, getattr(self, along), getattr(self, name))

    def until(self, level: float, along: str) -> float:
        """The first measured value of "steps" or "seconds" with so much pointing; infinite if it is not reached."""
        reached = np.flatnonzero(self.pointing >= level)
        return float(getattr(self, along)[reached[0]]) if len(reached) else np.inf


def learn(method: Method, seconds: float, steps: int, seed: int) -> Progress:
    """Train a decoder for so many seconds of processor time and so many steps, whichever comes last."""
    decoder = make_decoder(method.relaxation and method.relaxation(), seed)
    loss = objective(method.estimator and method.estimator())
    learned = [p for module in (decoder, loss) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    unseen = make_scenes(UNSEEN, torch.Generator().manual_seed(seed + 2**31))
    rows, spent, step = [(0, 0.0, *_measured(decoder, unseen))], 0.0, 0
    while spent < seconds or step < steps:
        start = time.process_time()
        for _ in range(EVERY):
            optimizer.zero_grad()
            loss_of(decoder, loss, make_scenes(BATCH, generator)).backward()
            optimizer.step()
        spent, step = spent + time.process_time() - start, step + EVERY
        rows.append((step, spent, *_measured(decoder, unseen)))
    return Progress(*map(np.array, zip(*rows, strict=True)))


@torch.no_grad()
def _measured(decoder: LuongDecoder, scenes: Scenes) -> tuple[float, float]:
    """Pointing, and the share of captions with every word right, each word after the true ones."""
    decoder.eval()
    logits, _ = decoder(decoder.prepare(scenes.values, GRID), scenes.tokens[:, :-1])
    right = (logits.argmax(dim=-1) == scenes.tokens[:, 1:]).all(dim=1).float().mean().item()
    found = pointing(decoder, scenes), right
    decoder.train()
    return found
