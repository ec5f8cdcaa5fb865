"""RELAX: REBAR with a learned control variate (Grathwohl et al. 2018)."""

import torch
from torch import Tensor, nn

from visattn.errors import require_number
from visattn.training.objectives.estimator import Reward
from visattn.training.objectives.rebar import Rebar


class Relax(Rebar):
    """REBAR with the control variate c(z) = η f(σ(z)) + r(z), r a learned network (Grathwohl 2018, section 3.3).

    η and r minimise the squared norm of the estimate with respect to the scores, a one-sample estimate of its variance
    (Grathwohl 2018, eq. 7). So that one network serves every grid, r is Σᵢ σ(z)ᵢ n(zᵢ, log αᵢ) with a network n.

    Args:
        hidden: size of the network's hidden layer.
        temperature: τ.
        scale: η, at first.
        adapt: whether η is learned.
        weight: λ_r, factor of the estimate.
        entropy: λ_e, weight of a bonus for spread-out α.
        reward: the cost assigned to a sample; see `Reinforce`.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        hidden: int = 16,
        temperature: float = 0.5,
        scale: float = 1.0,
        adapt: bool = True,
        weight: float = 1.0,
        entropy: float = 0.0,
        reward: Reward = "to_go",
    ) -> None:
        super().__init__(temperature, scale, adapt, weight, entropy, reward)
        require_number("hidden", hidden, least=1, of="RELAX")
        self.network = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)

    def free(self, z: Tensor, log_weights: Tensor) -> Tensor:
        # Improbable places have log α without a lower bound, which the network cannot tell apart anyway.
        inputs = torch.stack([z, log_weights], dim=-1).clamp(min=-10).to(self.network[0].weight.dtype)
        values = self.network(inputs).squeeze(-1).to(z.dtype)
        return ((z / self.temperature).softmax(dim=-1) * values).sum(dim=-1)
