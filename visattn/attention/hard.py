"""Hard attention: attend to a single, sampled place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.attention.contract import Glimpse, Memory
from visattn.attention.scores import AdditiveScore, Score
from visattn.attention.soft import SoftAttention, context
from visattn.errors import InputError

Coin = Literal["image", "step", "batch"]
Evaluation = Literal["argmax", "sample", "expected"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TossedMemory(Memory):
    """A memory for training with a coin flip per image.

    Attributes:
        drawn: (B,) bool, True if places are sampled, False if the expectation is used.
    """

    drawn: Tensor


class HardAttention(SoftAttention):
    """The stochastic attention of Xu 2015, section 4.1: s ~ Multinoulli(α), context z = the annotation vector at s.

    α = softmax(e / temperature). Sampling has no derivative, so α is trained only through `Glimpse.log_prob`, by
    `visattn.training.objectives.Reinforce`. To reduce the variance, the paper uses α instead of a sample for half of
    the images (Xu, section 4.1), which are then trained as in soft attention.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).
        probability: probability of sampling in training; ½ as published. With 0 this is exactly soft attention.
        coin: unit of the coin flips: each "image", as in the paper (shared by all captions, samples and words of an
            image); each "step" of each caption; or each step of the whole "batch", as in the authors' code.
        temperature: divides the scores: above 1 attention spreads, below 1 it concentrates. (The authors' option of the
            same name multiplies them.)
        evaluation: used outside training: the most probable place ("argmax"), a sample ("sample"), or α as in soft
            attention ("expected", as in the authors' code).

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        query_size: int,
        value_size: int,
        score: Callable[[int, int], Score] = AdditiveScore,
        probability: float = 0.5,
        coin: Coin = "image",
        temperature: float = 1.0,
        evaluation: Evaluation = "argmax",
    ) -> None:
        super().__init__(query_size, value_size, score)
        if not 0 <= probability <= 1:
            raise InputError(f"probability is {probability}; the probability of sampling must be between 0 and 1")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; it must be more than 0")
        for name, value, kinds in (("coin", coin, Coin), ("evaluation", evaluation, Evaluation)):
            if value not in get_args(kinds):
                raise InputError(f"{name} is '{value}'; it must be one of {', '.join(get_args(kinds))}")
        self.probability, self.coin, self.temperature, self.evaluation = probability, coin, temperature, evaluation

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        memory = super().prepare(values, grid, mask)
        if self.training and self.coin == "image" and self.probability > 0:
            coins = torch.rand(len(values), dtype=torch.float32, device=values.device)
            return TossedMemory(**vars(memory), drawn=coins < self.probability)
        return memory

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        scores = self.scores(query, memory) / self.temperature
        weights = scores.softmax(dim=-1)
        if (self.training and self.probability == 0) or (not self.training and self.evaluation == "expected"):
            return Glimpse.soft(context(weights, memory), weights)
        place = self.draw(weights) if self.training or self.evaluation == "sample" else weights.argmax(dim=-1)
        focus = F.one_hot(place, weights.shape[-1]).to(weights.dtype)
        log_prob = scores.log_softmax(dim=-1).gather(1, place.unsqueeze(1)).squeeze(1)
        if self.training:
            drawn = self._toss(memory, len(place))
            focus = torch.where(drawn.unsqueeze(1), focus, weights)
            log_prob = torch.where(drawn, log_prob, 0.0)
        return Glimpse(context(focus, memory), weights, focus, log_prob, torch.ones_like(log_prob))

    def draw(self, weights: Tensor) -> Tensor:
        """Sample a place from each row of α (N, L): (N,). The first of exponential arrival times with rates αᵢ."""
        return (weights / torch.empty_like(weights).exponential_()).argmax(dim=-1)

    def _toss(self, memory: Any, captions: int) -> Tensor:
        """(N,) True if a place is sampled, False if the expectation is used; a coin per image is in `TossedMemory`."""
        if self.coin == "image":
            return memory.drawn.repeat_interleave(captions // len(memory.drawn))
        count, device = captions if self.coin == "step" else 1, memory.values.device
        tosses = torch.rand(count, dtype=torch.float32, device=device) < self.probability
        return tosses.expand(captions)
