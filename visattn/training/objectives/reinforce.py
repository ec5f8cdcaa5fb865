"""REINFORCE for hard attention: the gradient of α from sampled places (Xu 2015, section 4.1; Williams 1992).

Sampling a place has no derivative. But the gradient of an expected cost over samples s ~ α is the expectation of
(cost − b) ∇ log p(s): samples that are better than the baseline b become more probable. Costs are −log p of words; Xu
writes the same with rewards, log p, and opposite signs.
"""

from typing import get_args

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse
from visattn.errors import InputError, require_choice, require_number
from visattn.training import processes
from visattn.training.objectives.estimator import (
    Estimate,
    Estimator,
    Rerun,
    Reward,
    assigned,
    diagnose,
    entropies,
)

FEATURES = 6


def known_before(nll: Tensor, glimpses: Glimpse, mask: Tensor) -> Tensor:
    """(B, T, `FEATURES`) what is known of a caption before the place of each word is sampled, without gradient.

    The number of words so far and to come, in tens; entropy and largest entry of α; −log p of the last word, and the
    mean of all words so far. The place of word t changes none of these at t, so a baseline may depend on them.
    """
    words = mask.to(nll.dtype)
    before = words.cumsum(dim=1) - words
    last = torch.cat([torch.zeros_like(nll[:, :1]), nll[:, :-1]], dim=1)
    weights = glimpses.weights.detach()
    features = [
        before / 10,
        (words.sum(dim=1, keepdim=True) - before) / 10,
        entropies(glimpses, mask).detach(),
        weights.amax(dim=-1),
        last,
        last.cumsum(dim=1) / before.clamp(min=1),
    ]
    return torch.stack([feature.to(nll.dtype) for feature in features], dim=-1)


class Baseline(nn.Module):
    """The baseline of costs. It must not depend on the sample that it is compared with, or the gradient is biased.

    Attributes:
        draws: number of consecutive copies of each caption needed in the batch, each with its own samples.
    """

    draws = 1

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """The baseline b of samples, broadcastable to (B, T).

        Args:
            costs: (B, T) of the samples.
            mask: (B, T) True if there is a word or a glimpse.
            known: what is known before each sample: (B, T, `FEATURES`) of captions, see `known_before`; or (B, T) the
                costs that a model's own baseline network expects.
        """
        raise NotImplementedError

    def error(self, baseline: Tensor, costs: Tensor, mask: Tensor) -> Tensor:
        """(B, T) the loss that trains the baseline, if it is learned."""
        return torch.zeros_like(costs)


class NoBaseline(Baseline):
    """b = 0."""

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        return torch.zeros_like(costs)


class MovingAverage(Baseline):
    """b_k = decay · b_{k−1} + (1 − decay) · mean cost of batch k, from b₀ = 0 (Xu 2015, section 4.1, with 0.9).

    Batch k is compared with b_{k−1}. The mean is over captions, each the mean over its words, and over all processes.

    Args:
        decay: weight of the previous average.
        steps: number of initial words with an average of their own; later words share the last. 1 is the published
            form. More help with rewards that differ from word to word ("to_go", "step").

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, decay: float = 0.9, steps: int = 1) -> None:
        super().__init__()
        require_number("decay", decay, least=0, below=1, of="the moving average")
        require_number("steps", steps, least=1, of="the moving average")
        self.decay = decay
        self.register_buffer("average", torch.zeros(steps))

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        group = torch.arange(costs.shape[1], device=costs.device).clamp(max=len(self.average) - 1)
        baseline = self.average[group]
        if self.training:
            self._update(costs, mask, group)
        return baseline.expand_as(costs)

    @torch.no_grad()
    def _update(self, costs: Tensor, mask: Tensor, group: Tensor) -> None:
        empty = costs.new_zeros(len(costs), len(self.average))
        words = empty.index_add(1, group, mask.to(costs.dtype))
        means = empty.index_add(1, group, costs * mask) / words.clamp(min=1)
        total, captions = processes.total(torch.stack([means.sum(dim=0), (words > 0).sum(dim=0)]))
        moved = self.decay * self.average + (1 - self.decay) * total / captions.clamp(min=1)
        self.average.copy_(torch.where(captions > 0, moved, self.average))


class LearnedValue(Baseline):
    """b = the cost that the model's own baseline network expects, trained by squared error (Mnih 2014, section 3.2).

    Args:
        weight: of the squared error in the objective.

    Raises:
        InputError: if `weight` is negative; and in training, if the model has no baseline network.
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        require_number("weight", weight, least=0, of="the baseline's squared error")
        self.weight = weight

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        if known is None or known.shape != costs.shape:
            raise InputError("the baseline LearnedValue needs a model with a baseline network, such as GlimpseModel")
        return known

    def error(self, baseline: Tensor, costs: Tensor, mask: Tensor) -> Tensor:
        return self.weight * (baseline - costs).square() * mask


class LeaveOneOut(Baseline):
    """b of a sample = the mean cost of the other samples for the caption (Kool 2019, "Buy 4 REINFORCE samples").

    With it `Reinforce` is RLOO: (1/K) Σ_k (cost_k − mean cost of the others) ∇ log p(s_k), here for each
    word where the reward is. It depends on the difficulty of the caption, so it removes more variance than an average
    over all captions, at K times the decoder's cost.

    Args:
        draws: K, at least 2.

    Raises:
        InputError: if K is less than 2.
    """

    def __init__(self, draws: int = 4) -> None:
        super().__init__()
        require_number("draws", draws, least=2, of="the leave-one-out baseline")
        self.draws = draws

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        together = costs.unflatten(0, (-1, self.draws))
        others = together.sum(dim=1, keepdim=True) - together
        return (others / (self.draws - 1)).flatten(0, 1)


class Reinforce(Estimator):
    """The learning rule of Xu 2015, section 4.1, as a term beside each caption's −Σₜ log p(yₜ).

    The term is λ_r Σₜ (costₜ − b) log αₜ[sₜ] − λ_e Σₜ H(αₜ), the advantage (costₜ − b) without gradient.

    λ_r = 1 without entropy estimates the exact gradient. Both are relative to a caption's whole likelihood, regardless
    of the batch size. Words without a sampled place have log αₜ = 0 here and contribute only to the entropy.

    Args:
        weight: λ_r.
        entropy: λ_e, weight of a bonus for spread-out α.
        reward: the cost assigned to a sample. "caption": the cost of all words, as published; "to_go": of the current
            and all later words, the same gradient with less variance, since a place does not change earlier words;
            "step": of the current word only, with even less variance, but ignoring effects on later words; "mean": of
            all words divided by their number.
        baseline: the baseline of costs.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        weight: float = 1.0,
        entropy: float = 0.0,
        reward: Reward = "caption",
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(weight, entropy)
        require_choice("reward", reward, get_args(Reward))
        self.reward: Reward = reward
        self.baseline = baseline or MovingAverage()

    def copies(self, places: int, steps: int) -> int:
        return self.baseline.draws

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        known = known_before(nll * mask, glimpses, mask)
        return self.estimate(nll, glimpses.log_prob, entropies(glimpses, mask), mask, known)

    def estimate(
        self, costs: Tensor, log_prob: Tensor, entropy: Tensor, mask: Tensor, known: Tensor | None = None
    ) -> Estimate:
        """The same for samples of any distribution.

        Args:
            costs: (B, T) of the steps, without gradient.
            log_prob: (B, T) of the samples; 0 where nothing was sampled.
            entropy: (B, T) of their distributions.
            mask: (B, T) bool, the steps that there are.
            known: see `Baseline`.
        """
        costs, entropy = assigned(costs * mask, mask, self.reward), entropy * mask
        baseline = self.baseline(costs, mask, known)
        error = self.baseline.error(baseline, costs, mask)
        baseline = baseline.detach()
        advantage = costs - baseline
        surrogate = self.weight * advantage * log_prob * mask - self.entropy * entropy
        surrogate = surrogate + (error - error.detach())  # its gradient belongs to the baseline alone
        drawn = mask & (log_prob != 0)
        return Estimate(surrogate.sum(dim=1), diagnose(advantage, baseline, entropy, drawn, mask))


class ArcticReinforce(Reinforce):
    """REINFORCE with the weights of the authors' code (kelvinxu/arctic-captions, `capgen.py`, RL_sumCost=True).

    It minimises (1/B) Σ −log p + 0.1 Σ (c − b) log α[s] + 0.002 Σ α log α, where c is the mean −log p of a caption's
    words: the last two sums are not divided by the number of captions B. Against a caption's likelihood that is
    λ_r = 0.1 B on the mean cost and λ_e = 0.002 B, so results depend on the batch size. For comparisons only;
    otherwise use `Reinforce`. With several processes B is the number of captions in all of them.
    """

    def __init__(self) -> None:
        super().__init__(weight=0.1, entropy=0.002, reward="mean", baseline=MovingAverage(0.9))

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        surrogate, diagnostics, _ = super().forward(nll, glimpses, mask)
        return Estimate(surrogate * processes.total(mask.new_tensor(len(mask), dtype=torch.long)), diagnostics)


def gradient_share(part: Tensor, loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """‖g‖ / (‖g‖ + ‖rest‖), where g is the gradient of a part of the loss and rest that of everything else.

    Given this process's share of both, it is that of all processes, the same in each.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = torch.stack(
        [
            torch.cat(
                [
                    gradient.flatten()
                    for gradient in torch.autograd.grad(
                        value, trained, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                ]
            )
            for value in (part, loss - part)
        ]
    )
    norm, other = processes.mean(gradients).norm(dim=1)
    return norm / (norm + other)
