"""VIMCO: several samples of a caption share one tighter bound (Mnih and Rezende 2016)."""

import math

from torch import Tensor

from visattn.attention import Glimpse
from visattn.errors import require_number
from visattn.training.objectives.estimator import Estimate, Estimator, Rerun, diagnose, entropies


class Vimco(Estimator):
    """Minimises −E log (1/K) Σ_k p(y | s_k) over K samples instead of −E log p(y | s).

    The objective of the others is the bound of Xu 2015, eq. 10; this one lies between it and the negative marginal
    log-likelihood, which it reaches as K grows. A sample's signal is the bound minus the bound in which the sample's
    log p is replaced by the mean of the others' (Mnih and Rezende 2016, eq. 9 and 10). The likelihood of sample k is
    weighted by p(y | s_k) / Σ_j p(y | s_j).

    Args:
        draws: K, at least 2.
        weight: λ_r, factor of the estimate.
        entropy: λ_e, weight of a bonus for spread-out α.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, draws: int = 4, weight: float = 1.0, entropy: float = 0.0) -> None:
        super().__init__(weight, entropy)
        require_number("draws", draws, least=2, of="VIMCO")
        self.draws = draws

    def copies(self, places: int, steps: int) -> int:
        return self.draws

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        log_likelihood = -(nll * mask).sum(dim=1).unflatten(0, (-1, self.draws))
        bound = log_likelihood.logsumexp(dim=1, keepdim=True) - math.log(self.draws)
        others = (log_likelihood.sum(dim=1, keepdim=True) - log_likelihood) / (self.draws - 1)
        swapped = log_likelihood.unsqueeze(1).repeat(1, self.draws, 1)
        swapped.diagonal(dim1=1, dim2=2).copy_(others)
        without = swapped.logsumexp(dim=2) - math.log(self.draws)
        # The mean over copies in the loss is over K, and the bound is one for all K.
        advantage = (self.draws * (without - bound)).flatten().unsqueeze(1).expand_as(nll)
        baseline = -without.flatten().unsqueeze(1).expand_as(nll)
        entropy = entropies(glimpses, mask)
        surrogate = self.weight * advantage * glimpses.log_prob * mask - self.entropy * entropy
        drawn = mask & (glimpses.log_prob != 0)
        weights = self.draws * log_likelihood.softmax(dim=1).flatten()
        return Estimate(surrogate.sum(dim=1), diagnose(advantage, baseline, entropy, drawn, mask), weights)
