"""Gradient estimators of hard attention against the exact gradient: a small task, a decoder, and the measurement.

A scene is a 3 × 3 grid of symbols, two of which are marked; the caption names the first marked symbol and then the
second. With two words there are 81 sequences of places, so the gradient is known exactly. Used by `visattn estimators`.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visattn.attention import (
    AdditiveScore,
    GumbelSoftmax,
    HardAttention,
    ReinMax,
    Relaxation,
    StraightThrough,
    StraightThroughGumbel,
)
from visattn.models import LuongDecoder
from visattn.training.objectives import (
    CaptionLoss,
    Enumeration,
    Estimator,
    LearnedBaseline,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    Rebar,
    Reinforce,
    Relax,
    WithoutReplacement,
    rerun_of,
)
from visattn.vocabulary import SPECIALS, START

GRID, SYMBOLS, WORDS = (3, 3), 5, 2
PLACES = GRID[0] * GRID[1]
SIZE = 16  # of hidden state, words and score
LEARNING_RATE = 1e-2
DIRECTIONS = 7  # random directions in which the mean is compared with the exact gradient


class Method(NamedTuple):
    """A way to train hard attention.

    Attributes:
        title: for people.
        unbiased: whether its mean is the exact gradient.
        passes: decoder passes per caption and gradient.
        estimator: makes the objective's estimator, or None with a relaxation.
        relaxation: makes the relaxation, or None.
    """

    title: str
    unbiased: bool
    passes: int
    estimator: Callable[[], Estimator] | None = None
    relaxation: Callable[[], Relaxation] | None = None


def _reinforce(title: str, baseline: Callable[[], nn.Module], passes: int = 1) -> Method:
    return Method(title, True, passes, lambda: Reinforce(reward="to_go", baseline=baseline()))


METHODS: dict[str, Method] = {
    "enumeration": Method("exact enumeration", True, PLACES**WORDS, Enumeration),
    "reinforce": _reinforce("REINFORCE", NoBaseline),
    "average": _reinforce("moving average", partial(MovingAverage, steps=WORDS)),
    "learned": _reinforce("learned baseline", partial(LearnedBaseline, steps=WORDS)),
    "rloo": _reinforce("leave-one-out (RLOO), K = 4", partial(LeaveOneOut, 4), passes=4),
    "without-replacement": Method("without replacement, K = 4", True, 12, WithoutReplacement),
    "rebar": Method("REBAR", True, 2, Rebar),
    "relax": Method("RELAX", True, 2, Relax),
    "straight-through": Method("straight-through", False, 1, None, StraightThrough),
    "reinmax": Method("ReinMax", False, 1, None, ReinMax),
    "st-gumbel": Method("straight-through Gumbel, τ = 0.5", False, 1, None, StraightThroughGumbel),
    "gumbel": Method("Gumbel-softmax, τ = 0.5", False, 1, None, GumbelSoftmax),
    "gumbel-sharp": Method("Gumbel-softmax, τ = 0.1", False, 1, None, partial(GumbelSoftmax, 0.1)),
}


class Scenes(NamedTuple):
    """B scenes and their captions.

    Attributes:
        values: (B, L, D) annotation vectors: one-hot symbol and one-hot mark.
        tokens: (B, 1 + `WORDS`) START and the words.
        places: (B, `WORDS`) where each word's symbol is.
    """

    values: Tensor
    tokens: Tensor
    places: Tensor


def make_scenes(count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Scenes:
    """Draw scenes."""
    symbols = torch.randint(SYMBOLS, (count, PLACES), generator=generator)
    places = torch.rand(count, PLACES, generator=generator).argsort(dim=1)[:, :WORDS]
    marks = torch.zeros_like(symbols).scatter(1, places, torch.arange(1, WORDS + 1).expand(count, -1))
    values = torch.cat([F.one_hot(symbols, SYMBOLS), F.one_hot(marks, WORDS + 1)], dim=-1).to(dtype)
    words = symbols.gather(1, places) + len(SPECIALS)
    return Scenes(values, torch.cat([torch.full((count, 1), START), words], dim=1), places)


def make_decoder(relaxation: Relaxation | None = None, seed: int = 0) -> LuongDecoder:
    """An untrained decoder in training mode; no dropout, and a place is sampled at every word."""

    def attention(query: int, value: int) -> HardAttention:
        evaluation = "argmax" if relaxation is None or relaxation.discrete else "sample"
        score = partial(AdditiveScore, hidden=SIZE)
        return HardAttention(query, value, score, probability=1.0, evaluation=evaluation, relaxation=relaxation)

    torch.manual_seed(seed)
    words, size = len(SPECIALS) + SYMBOLS, SYMBOLS + WORDS + 1
    return LuongDecoder(words, size, attention, hidden=SIZE, embedding=SIZE, dropout=0.0)


def loss_of(decoder: LuongDecoder, loss: CaptionLoss, scenes: Scenes) -> Tensor:
    """The objective, per caption: its gradient is the estimate."""
    tokens = scenes.tokens.repeat_interleave(loss.copies(PLACES, WORDS), dim=0)
    heard, targets = tokens[:, :-1], tokens[:, 1:]
    memory = loss.placed(decoder, decoder.prepare(scenes.values, GRID), heard, targets)
    logits, glimpses = decoder(memory, heard)
    return WORDS * loss(logits, glimpses, targets, rerun=rerun_of(decoder, memory, heard, targets)).loss


def gradient_of(decoder: LuongDecoder, loss: CaptionLoss, scenes: Scenes) -> Tensor:
    """(P,) the gradient of the attention's parameters."""
    parameters = list(decoder.attention.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(decoder, loss, scenes), parameters)])


def objective(estimator: Estimator | None) -> CaptionLoss:
    """The likelihood alone, with an estimator."""
    return CaptionLoss(doubly_stochastic=0.0, reinforce=estimator)


def half_trained(seed: int = 0, limit: int = 600) -> tuple[LuongDecoder, int]:
    """A decoder trained with exact gradients until half of the attention is at the true places.

    Returns:
        The decoder, and the number of training steps.
    """
    decoder, generator = make_decoder(seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), LEARNING_RATE)
    loss, unseen = objective(Enumeration()), make_scenes(101, generator)
    for step in range(limit):
        if pointing(decoder, unseen) >= 0.5:
            return decoder, step
        optimizer.zero_grad()
        loss_of(decoder, loss, make_scenes(32, generator)).backward()
        optimizer.step()
    return decoder, limit


@torch.no_grad()
def pointing(decoder: LuongDecoder, scenes: Scenes) -> float:
    """The mean weight α of the true places."""
    _, glimpses = decoder(decoder.prepare(scenes.values, GRID), scenes.tokens[:, :-1])
    return glimpses.weights.gather(2, scenes.places.unsqueeze(2)).mean().item()


def measure(method: Method, trained: LuongDecoder, scenes: Scenes, draws: int, warmup: int, seed: int = 0) -> dict:
    """Bias, variance and cost of a method's gradient for fixed scenes, relative to the exact gradient g.

    Args:
        method: what is measured.
        trained: the decoder whose weights are used.
        scenes: one batch.
        draws: number of gradients.
        warmup: steps in which baselines and control variates are fitted beforehand.
        seed: of the samples.

    Returns:
        bias: gᵀ(m − g) / ‖g‖² for the mean m; `bias_error` is its standard error.
        bias_norm: ‖m − g‖ / ‖g‖, less what noise alone would make of it; `noise` is that part.
        deviation: the largest |m − g| along 7 random directions, in standard errors.
        cosine: of m and g.
        variance: trace of the covariance of a gradient, over ‖g‖².
        passes: of the decoder per caption, and `milliseconds` per gradient.
    """
    exact = gradient_of(_copy(trained, None), objective(Enumeration()), scenes)
    decoder = _copy(trained, method.relaxation and method.relaxation())
    estimator = method.estimator and method.estimator()
    loss = objective(estimator)
    torch.manual_seed(seed)
    _fit(decoder, loss, scenes, warmup)
    gradient_of(decoder, loss, scenes)
    start = time.perf_counter()
    samples = torch.stack([gradient_of(decoder, loss, scenes) for _ in range(draws)]).double()
    milliseconds = 1000 * (time.perf_counter() - start) / draws
    return {
        **compare_gradients(samples, exact.double()),
        "passes": method.passes,
        "milliseconds": round(milliseconds, 2),
    }


def compare_gradients(samples: Tensor, exact: Tensor) -> dict[str, float]:
    """Bias and variance of gradients (n, P) against the exact one (P,); see `measure`."""
    count, norm = len(samples), exact.norm()
    mean, variance = samples.mean(dim=0), samples.var(dim=0).sum()
    along = samples @ exact / norm**2 - 1
    squared, noise = (mean - exact).square().sum(), variance / count
    directions = torch.randn(len(exact), DIRECTIONS, dtype=samples.dtype, generator=torch.Generator().manual_seed(0))
    projected = (samples - exact) @ directions
    # Rounding alone separates the enumeration from itself.
    errors = (projected.std(dim=0) / count**0.5).clamp(min=1e-5 * norm)
    return {
        "bias": along.mean().item(),
        "bias_error": (along.std() / count**0.5).item(),
        "bias_norm": ((squared - noise).clamp(min=0).sqrt() / norm).item(),
        "noise": (noise.sqrt() / norm).item(),
        "deviation": (projected.mean(dim=0) / errors).abs().max().item(),
        "cosine": (mean @ exact / mean.norm() / norm).item(),
        "variance": (variance / norm**2).item(),
    }


def _copy(trained: LuongDecoder, relaxation: Relaxation | None) -> LuongDecoder:
    """A decoder with the same weights and another relaxation."""
    decoder = make_decoder(relaxation).to(trained.out.weight.dtype)
    decoder.load_state_dict(trained.state_dict())
    return decoder


def _fit(decoder: LuongDecoder, loss: CaptionLoss, scenes: Scenes, steps: int) -> None:
    """Fit what an estimator learns, while the decoder stays as it is."""
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, LEARNING_RATE) if learned else None
    for _ in range(steps if list(loss.buffers()) or learned else 0):
        value = loss_of(decoder, loss, scenes)
        if optimizer is not None:
            optimizer.zero_grad()
            value.backward(inputs=learned)
            optimizer.step()
