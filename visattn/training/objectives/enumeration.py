"""The exact gradient of hard attention, by enumeration of all sequences of places."""

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.attention import Glimpse, HardAttention, Memory
from visattn.errors import InputError, require_number
from visattn.models.decoder import Decoder
from visattn.training.objectives.estimator import (
    Estimate,
    Estimator,
    Rerun,
    diagnose,
    entropies,
    require_same_coins,
)


class Enumeration(Estimator):
    """Σ_s p(s) cost(s) over all L^T sequences s of L places at T steps (the sum in Xu 2015, eq. 11), differentiated.

    No estimate has less variance, so this is the upper bound of what a better estimator can bring; it is possible only
    for few places and steps, since each caption is decoded L^T times. It needs teacher forcing, and is exact without
    dropout, which would differ between the sequences of a caption.

    Args:
        limit: largest number of sequences, L^T.
        entropy: λ_e, weight of a bonus for spread-out α.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, limit: int = 4096, entropy: float = 0.0) -> None:
        super().__init__(entropy=entropy)
        require_number("limit", limit, least=1, of="the enumeration")
        self.limit = limit

    def check(self, attention: HardAttention, places: int) -> None:
        require_same_coins(self, attention)
        self.copies(places, 1)

    def copies(self, places: int, steps: int) -> int:
        if places**steps > self.limit:
            raise InputError(
                f"limit is {self.limit:,} sequences, but {places} places at {steps} step{'s'[: steps > 1]} have "
                f"{places**steps:.3g}; enumeration is for small grids and short captions, so use another estimator, "
                "such as Reinforce, or a larger limit"
            )
        return places**steps

    def focus(self, decoder: Decoder, memory: Memory, heard: Tensor, mask: Tensor) -> Tensor:
        places, steps = memory.values.shape[1], heard.shape[1]
        digits = torch.cartesian_prod(*[torch.arange(places, device=heard.device)] * steps).view(-1, steps)
        return F.one_hot(digits, places).float().repeat(len(heard) // len(digits), 1, 1)

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        paths = self.copies(glimpses.weights.shape[-1], mask.shape[1])
        log_prob = torch.where(mask, glimpses.log_prob, 0.0).sum(dim=1)
        # Normalised, since all places of a step without a sample (padding, or a coin that fell on α) have log p = 0.
        shares = paths * log_prob.unflatten(0, (-1, paths)).softmax(dim=1).flatten()
        costs = (nll * mask).sum(dim=1)
        expected = (shares.detach() * costs).unflatten(0, (-1, paths)).mean(dim=1).repeat_interleave(paths)
        entropy = entropies(glimpses, mask)
        surrogate = shares * (costs - self.entropy * entropy.sum(dim=1))
        shares = shares.detach()
        drawn = (mask & (glimpses.log_prob != 0)) * shares.unsqueeze(1)
        baseline = expected.unsqueeze(1).expand_as(nll)
        advantage = costs.unsqueeze(1) - baseline
        diagnostics = diagnose(advantage, baseline, entropy * shares.unsqueeze(1), drawn, mask)
        return Estimate(surrogate, diagnostics, shares)
