"""REBAR: REINFORCE with the relaxed decoder as control variate (Tucker et al. 2017)."""

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, HardAttention
from visattn.errors import InputError, require_number
from visattn.training.objectives.estimator import (
    Estimate,
    Estimator,
    Rerun,
    Reward,
    assigned,
    diagnose,
    entropies,
    require_same_coins,
)


class Rebar(Estimator):
    """[f(s) − η f(σ(z̃))] ∇ log p(s) + η ∇ f(σ(z)) − η ∇ f(σ(z̃)), unbiased for every η and τ (Tucker 2017, eq. 9).

    f is the cost, σ(z) = softmax(z / τ), z = log α + Gumbel noise, s = argmax z, and z̃ is distributed as z given s. z
    and z̃ are coupled so that they have the same value (Tucker 2017, section 3.1) and differ only as functions of α.
    One more pass of the decoder, forward and backward, with weights σ(z) in place of samples, is therefore enough.

    Over several steps z belongs to the sampled sequence: α of each step is that after the places sampled before it.

    Args:
        temperature: τ.
        scale: η, at first.
        adapt: whether η is learned: it minimises the squared norm of the estimate with respect to the scores, and so
            its variance (Tucker 2017, section 3.2).
        weight: λ_r, factor of the estimate.
        entropy: λ_e, weight of a bonus for spread-out α.
        reward: the cost assigned to a sample; see `Reinforce`.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        scale: float = 1.0,
        adapt: bool = True,
        weight: float = 1.0,
        entropy: float = 0.0,
        reward: Reward = "to_go",
    ) -> None:
        super().__init__(weight, entropy)
        require_number("temperature", temperature, above=0, of="the control variate")
        if reward not in ("caption", "to_go"):
            raise InputError(f"reward is '{reward}'; {type(self).__name__} is unbiased only with caption or to_go")
        self.temperature, self.reward = temperature, reward
        self.scale = nn.Parameter(torch.tensor(float(scale)), requires_grad=adapt)

    def check(self, attention: HardAttention, places: int) -> None:
        require_same_coins(self, attention)

    def free(self, z: Tensor, log_weights: Tensor) -> Tensor | None:
        """(B, T) a further control variate of each step, a function of z and log α, (B, T, L) each; here none."""
        return None

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        if rerun is None:
            raise ValueError(f"{type(self).__name__} needs a second pass of the decoder")
        drawn = mask & (glimpses.log_prob != 0)
        log_weights = glimpses.weights.clamp_min(torch.finfo(glimpses.weights.dtype).tiny).log()
        place = glimpses.focus.detach().argmax(dim=-1, keepdim=True)
        noise = torch.empty_like(log_weights).exponential_().log()
        z = given_place(log_weights.detach(), place, noise).requires_grad_()
        relaxed = rerun((z / self.temperature).softmax(dim=-1)) * mask
        slope = torch.autograd.grad(relaxed.sum(), z)[0]
        costs, control = (assigned(part.detach(), mask, self.reward) for part in (nll * mask, relaxed))

        controls, slopes = self.scale * control, self.scale * slope
        if (more := self.free(z, log_weights.detach())) is not None:
            controls = controls + more
            slopes = slopes + torch.autograd.grad(more.sum(), z, create_graph=True)[0]

        def estimate(log_weights: Tensor, controls: Tensor, slopes: Tensor) -> Tensor:
            """(B, T) whose gradient in log α is the estimate."""
            unconditional = log_weights + (z - log_weights).detach()
            difference = unconditional - given_place(log_weights, place, noise)
            log_prob = log_weights.gather(-1, place).squeeze(-1)
            return ((costs - controls) * log_prob + (slopes * difference).sum(dim=-1)) * drawn

        entropy = entropies(glimpses, mask)
        surrogate = self.weight * estimate(log_weights, controls.detach(), slopes.detach()) - self.entropy * entropy
        if controls.requires_grad:
            scores = log_weights.detach().requires_grad_()
            of_scores = estimate(scores.log_softmax(dim=-1), controls, slopes)
            gradient = torch.autograd.grad(of_scores.sum(), scores, create_graph=True)[0]
            spread = gradient.square().sum(dim=-1)
            surrogate = surrogate + (spread - spread.detach())  # its gradient belongs to the control variate alone
        controls = controls.detach()
        return Estimate(surrogate.sum(dim=1), diagnose(costs - controls, controls, entropy, drawn, mask))


def given_place(log_weights: Tensor, place: Tensor, noise: Tensor) -> Tensor:
    """Log α + Gumbel noise, given that its argmax is a place (Tucker 2017, appendix C).

    Args:
        log_weights: (…, L) log α, normalised.
        place: (…, 1) the argmax.
        noise: (…, L) logarithms of exponential variables.

    Returns:
        (…, L), differentiable in log α.
    """
    winner = noise.gather(-1, place)
    return torch.where(
        torch.zeros_like(noise, dtype=torch.bool).scatter(-1, place, True),
        -winner,
        -torch.logaddexp(noise - log_weights, winner),
    )
