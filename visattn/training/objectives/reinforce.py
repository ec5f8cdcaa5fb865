"""REINFORCE for hard attention: the gradient of α from sampled places (Xu 2015, section 4.1; Williams 1992).

Sampling a place has no derivative. But the gradient of an expected cost over samples s ~ α is the expectation of
(cost − b) ∇ log p(s): samples that are better than the baseline b become more probable. Costs are −log p of words; Xu
writes the same with rewards, log p, and opposite signs.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse
from visattn.errors import InputError
from visattn.training import processes

Reward = Literal["caption", "to_go", "step", "mean"]


class Baseline(nn.Module):
    """The baseline of costs. It must not depend on the sample that it is compared with, or the gradient is biased.

    Attributes:
        draws: number of consecutive copies of each caption needed in the batch, each with its own samples.
    """

    draws = 1

    def forward(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
        """The baseline, without gradient.

        Args:
            costs: (B, T) of samples.
            mask: (B, T) of words or glimpses.
            values: (B, T) costs that the model itself expects, where it has a network for that.

        Returns:
            b, broadcastable to (B, T).
        """
        raise NotImplementedError

    def loss(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor | None:
        """(B,) what trains the baseline itself, to be added to the objective; None if nothing does."""
        return None


class NoBaseline(Baseline):
    """b = 0."""

    def forward(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
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
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}; it must be at least 0 and less than 1")
        if steps < 1:
            raise InputError(f"steps is {steps}; a moving average needs at least 1")
        self.decay = decay
        self.register_buffer("average", torch.zeros(steps))

    def forward(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
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
        if weight < 0:
            raise InputError(f"weight is {weight}; that of the baseline's squared error must not be negative")
        self.weight = weight

    def forward(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
        return self._expected(values).detach()

    def loss(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
        return self.weight * ((self._expected(values) - costs).square() * mask).sum(dim=1)

    @staticmethod
    def _expected(values: Tensor | None) -> Tensor:
        if values is None:
            raise InputError("the baseline LearnedValue needs a model with a baseline network, such as GlimpseModel")
        return values


class LeaveOneOut(Baseline):
    """b of a sample = the mean cost of the other samples for the caption (Kool 2019, "Buy 4 REINFORCE samples").

    It depends on the difficulty of the caption, so it removes more variance than an average over all captions, at K
    times the decoder's cost.

    Args:
        draws: K, at least 2.

    Raises:
        InputError: if K is less than 2.
    """

    def __init__(self, draws: int = 4) -> None:
        super().__init__()
        if draws < 2:
            raise InputError(f"draws is {draws}; the leave-one-out baseline needs at least 2 samples per caption")
        self.draws = draws

    def forward(self, costs: Tensor, mask: Tensor, values: Tensor | None = None) -> Tensor:
        together = costs.unflatten(0, (-1, self.draws))
        others = together.sum(dim=1, keepdim=True) - together
        return (others / (self.draws - 1)).flatten(0, 1)


class Estimate(NamedTuple):
    """Result of `Reinforce`.

    Attributes:
        surrogate: (B,) for each caption a number whose gradient is the estimate; its value is meaningless.
        diagnostics: scalars to log: `advantage` (mean over sampled places) and `advantage_variance`; `baseline` (mean);
            `entropy` of α (mean over words, in nats); `drawn`, the share of words with a sample. With several processes
            each has its share of them (`visattn.training.processes`).
    """

    surrogate: Tensor
    diagnostics: dict[str, Tensor]


class Reinforce(nn.Module):
    """The learning rule of Xu 2015, section 4.1, as a term added to each caption's −Σₜ log p(yₜ).

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
        super().__init__()
        for name, value in (("weight", weight), ("entropy", entropy)):
            if value < 0:
                raise InputError(f"{name} is {value}; in REINFORCE it must not be negative")
        if reward not in get_args(Reward):
            raise InputError(f"reward is '{reward}'; it must be one of {', '.join(get_args(Reward))}")
        self.weight, self.entropy, self.reward = weight, entropy, reward
        self.baseline = baseline or MovingAverage()

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor) -> Estimate:
        """−log p of the words (B, T) without gradient, glimpses with a time axis, and the mask of words (B, T)."""
        entropy = -(glimpses.weights * glimpses.weights.clamp(min=1e-12).log()).sum(dim=-1)
        return self.estimate(nll, glimpses.log_prob, entropy, mask)

    def estimate(
        self, costs: Tensor, log_prob: Tensor, entropy: Tensor, mask: Tensor, values: Tensor | None = None
    ) -> Estimate:
        """The same for samples of any distribution.

        Args:
            costs: (B, T) of the steps, without gradient.
            log_prob: (B, T) of the samples; 0 where nothing was sampled.
            entropy: (B, T) of their distributions.
            mask: (B, T) bool, the steps that there are.
            values: (B, T) as `Baseline` takes them.
        """
        costs = self._costs(costs * mask, mask)
        baseline = self.baseline(costs, mask, values)
        advantage = costs - baseline
        surrogate = self.weight * advantage * log_prob * mask - self.entropy * entropy * mask
        drawn = mask & (log_prob != 0)
        draws, words = processes.mean(torch.stack([drawn.sum(), mask.sum()]))
        draws = torch.where(draws > 0, draws, 1.0)
        advantages = (advantage * drawn).sum() / draws
        diagnostics = {
            "advantage": advantages,
            "advantage_variance": ((advantage - processes.mean(advantages)).square() * drawn).sum() / draws,
            "baseline": (baseline * mask).sum() / words,
            "entropy": (entropy.detach() * mask).sum() / words,
            "drawn": drawn.sum() / words,
        }
        total = surrogate.sum(dim=1)
        own = self.baseline.loss(costs, mask, values)
        return Estimate(total if own is None else total + own, diagnostics)

    def _costs(self, nll: Tensor, mask: Tensor) -> Tensor:
        """(B, T) the cost assigned to each word's sample."""
        if self.reward == "step":
            return nll
        if self.reward == "to_go":
            return nll.flip(1).cumsum(dim=1).flip(1)
        total = nll.sum(dim=1, keepdim=True)
        return (total if self.reward == "caption" else total / mask.sum(dim=1, keepdim=True)).expand_as(nll)


class ArcticReinforce(Reinforce):
    """REINFORCE with the weights of the authors' code (kelvinxu/arctic-captions, `capgen.py`, RL_sumCost=True).

    It minimises (1/B) Σ −log p + 0.1 Σ (c − b) log α[s] + 0.002 Σ α log α, where c is the mean −log p of a caption's
    words: the last two sums are not divided by the number of captions B. Against a caption's likelihood that is
    λ_r = 0.1 B on the mean cost and λ_e = 0.002 B, so results depend on the batch size. For comparisons only;
    otherwise use `Reinforce`. With several processes B is the number of captions in all of them.
    """

    def __init__(self) -> None:
        super().__init__(weight=0.1, entropy=0.002, reward="mean", baseline=MovingAverage(0.9))

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor) -> Estimate:
        surrogate, diagnostics = super().forward(nll, glimpses, mask)
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
