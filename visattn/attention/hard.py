"""Hard attention: attend to a single, sampled place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.attention.contract import Glimpse, Memory, check_soft_start
from visattn.attention.relaxations import Relaxation
from visattn.attention.scores import AdditiveScore, Score
from visattn.attention.soft import SoftAttention, context
from visattn.errors import InputError

Coin = Literal["image", "step", "batch"]
Evaluation = Literal["argmax", "sample", "expected"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledMemory(Memory):
    """A memory for training with sampled places.

    Attributes:
        drawn: (B,) bool, True if places are sampled, False if the expectation is used; None with another coin.
        focus: (B, K, T, L) weights to use instead of a sample at each of T steps, or None.
    """

    drawn: Tensor | None = None
    focus: Tensor | None = None


def prescribed(memory: Memory, focus: Tensor) -> SampledMemory:
    """A memory with which hard attention samples nothing, and uses `focus` (N, T, L) at its T steps.

    Raises:
        InputError: if the memory is not that of `HardAttention` in training.
    """
    if not isinstance(memory, SampledMemory):
        raise InputError(
            "reinforce prescribes the places of hard attention, and its memory is of another mechanism: use "
            "HardAttention with a probability above 0, or the objective Reinforce"
        )
    return replace(memory, focus=memory.per_image(focus))


class HardAttention(SoftAttention):
    """The stochastic attention of Xu 2015, section 4.1: s ~ Multinoulli(α), context z = the annotation vector at s.

    α = softmax(e / temperature). Sampling has no derivative, so α is trained either through `Glimpse.log_prob`, by an
    objective such as `visattn.training.objectives.Reinforce`, or by a relaxation, which gives the sample a derivative
    (`log_prob` is then 0 in training, so that nothing is counted twice). To reduce the variance, the paper uses α
    instead of a sample for half of the images (Xu, section 4.1), which are then trained as in soft attention.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).
        probability: probability of sampling in training; ½ as published. With 0 it is trained as soft attention
            is, and still decodes as `evaluation` says.
        coin: unit of the coin flips: each "image", as in the paper (shared by all captions, samples and words of an
            image); each "step" of each caption; or each step of the whole "batch", as in the authors' code.
        temperature: divides the scores: above 1 attention spreads, below 1 it concentrates. (The authors' option of the
            same name multiplies them.)
        evaluation: used outside training: the most probable place ("argmax"), a sample ("sample"), or α as in soft
            attention ("expected", as in the authors' code).
        relaxation: the derivative of the sample; None for REINFORCE.
        soft_start: share of training, at its beginning, in which α is used for all images; 0 as published. Maps settle
            on the objects in it, and its steps cost less.

    Raises:
        InputError: if an option is out of its range, or the relaxation mixes places and evaluation is "argmax".
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
        relaxation: Relaxation | None = None,
        soft_start: float = 0.0,
    ) -> None:
        super().__init__(query_size, value_size, score)
        if not 0 <= probability <= 1:
            raise InputError(f"probability is {probability}; the probability of sampling must be between 0 and 1")
        check_soft_start(soft_start)
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; it must be more than 0")
        for name, value, kinds in (("coin", coin, Coin), ("evaluation", evaluation, Evaluation)):
            if value not in get_args(kinds):
                raise InputError(f"{name} is '{value}'; it must be one of {', '.join(get_args(kinds))}")
        if relaxation is not None and not relaxation.discrete and evaluation == "argmax":
            raise InputError(
                f"evaluation is 'argmax', but the relaxation {type(relaxation).__name__} trains with mixtures of "
                "places; use evaluation 'expected' or 'sample', or a relaxation such as StraightThroughGumbel"
            )
        self.probability, self.coin, self.temperature, self.evaluation = probability, coin, temperature, evaluation
        self.relaxation, self.soft_start = relaxation, soft_start

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        memory = super().prepare(values, grid, mask)
        if not self.training or self.probability == 0:
            return memory
        drawn = None
        if self.coin == "image":
            drawn = torch.rand(len(values), dtype=torch.float32, device=values.device) < self._sampled
        return SampledMemory(**vars(memory), drawn=drawn)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        scores = self.scores(query, memory) / self.temperature
        weights = scores.softmax(dim=-1)
        if (self.training and self.probability == 0) or (not self.training and self.evaluation == "expected"):
            return Glimpse.soft(context(weights, memory), weights)
        focus, log_prob = self._sample(scores, weights, memory, t)
        if self.training:
            drawn = self._toss(memory, len(focus))
            focus = torch.where(drawn.unsqueeze(1), focus, weights)
            log_prob = torch.where(drawn, log_prob, 0.0)
        return Glimpse(context(focus, memory), weights, focus, log_prob, torch.ones_like(log_prob))

    def _sample(self, scores: Tensor, weights: Tensor, memory: Memory, t: int) -> tuple[Tensor, Tensor]:
        """The weights to use (N, L), and the log-probability of their place (N,), 0 if they have a derivative."""
        given = memory.focus if isinstance(memory, SampledMemory) and self.training else None
        if given is not None:
            focus = given[:, :, t].flatten(0, 1).to(weights.dtype)
            place = focus.argmax(dim=-1)
        elif self.training and self.relaxation is not None:
            focus, _ = self.relaxation(scores)
            return focus, torch.zeros_like(focus[:, 0])
        else:
            place = self.draw(weights) if self.training or self.evaluation == "sample" else weights.argmax(dim=-1)
            focus = F.one_hot(place, weights.shape[-1]).to(weights.dtype)
        return focus, scores.log_softmax(dim=-1).gather(1, place.unsqueeze(1)).squeeze(1)

    def draw(self, weights: Tensor) -> Tensor:
        """Sample a place from each row of α (N, L): (N,). The first of exponential arrival times with rates αᵢ."""
        return (weights / torch.empty_like(weights).exponential_()).argmax(dim=-1)

    @property
    def _sampled(self) -> float:
        """The probability of sampling at this point of training."""
        return 0.0 if self.progress < self.soft_start else self.probability

    def _toss(self, memory: Memory, captions: int) -> Tensor:
        """(N,) True if a place is sampled, False if the expectation is used; a coin per image is in the memory."""
        if isinstance(memory, SampledMemory) and memory.drawn is not None:
            return memory.drawn.repeat_interleave(captions // len(memory.drawn))
        count, device = captions if self.coin == "step" else 1, memory.values.device
        tosses = torch.rand(count, dtype=torch.float32, device=device) < self._sampled
        return tosses.expand(captions)
