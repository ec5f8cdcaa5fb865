"""A learned baseline: the value function of the costs (Mnih and Gregor 2014; Mnih et al. 2014)."""

import torch
from torch import Tensor, nn

from visattn.errors import InputError, require_number
from visattn.training.objectives.reinforce import FEATURES, Baseline, MovingAverage


class LearnedBaseline(Baseline):
    """b = c + C(x): a moving average c for each step, and a network C of what is known before the sample.

    C minimises (cost − c − C(x))² (NVIL, Mnih and Gregor 2014, eq. 8 and 9; the value function of Mnih et al. 2014, eq.
    7). x is `known_before`: it does not depend on the sample, so the gradient stays unbiased. NVIL's division by the
    standard deviation of the advantage is left out: it changes only the step size. One sample per caption is enough.

    Args:
        hidden: size of the network's hidden layer.
        weight: weight of the squared error in the loss.
        decay: of the moving averages.
        steps: number of words with an average of their own.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, hidden: int = 32, weight: float = 0.1, decay: float = 0.9, steps: int = 16) -> None:
        super().__init__()
        require_number("hidden", hidden, least=1, of="the learned baseline")
        require_number("weight", weight, above=0, of="the learned baseline")
        self.weight = weight
        self.average = MovingAverage(decay, steps)
        self.network = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        for parameter in self.network[-1].parameters():  # until it has learned, it is the moving average
            nn.init.zeros_(parameter)

    def forward(self, costs: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        if known is None or known.dim() != 3:
            raise InputError("the baseline LearnedBaseline is for captions; use LearnedValue for glimpse models")
        value = self.network(known.to(self.network[0].weight.dtype)).squeeze(-1)
        return self.average(costs, mask) + value.to(costs.dtype)

    def error(self, baseline: Tensor, costs: Tensor, mask: Tensor) -> Tensor:
        return self.weight * torch.where(mask, costs - baseline, 0.0).square()
