"""The interface of estimators of the gradient of sampled places."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, HardAttention, Memory
from visattn.errors import InputError, require_number
from visattn.models.decoder import Decoder
from visattn.training import processes

Reward = Literal["caption", "to_go", "step", "mean"]
Rerun = Callable[[Tensor], Tensor]
"""−log p of the words (B, T) if the decoder uses weights (B, T, L) in place of samples; differentiable in them."""


class Estimate(NamedTuple):
    """Result of an estimator.

    Attributes:
        surrogate: (B,) for each caption a number whose gradient is the estimate; its value is meaningless.
        diagnostics: scalars to log: `advantage` (mean over sampled places) and `advantage_variance`; `baseline` (mean);
            `entropy` of α (mean over words, in nats); `drawn`, the share of words with a sample. With several processes
            each has its share of them (`visattn.training.processes`).
        weights: (B,) weight of each caption's likelihood in the loss, whose mean is 1; None if they are equal.
    """

    surrogate: Tensor
    diagnostics: dict[str, Tensor]
    weights: Tensor | None = None


class Estimator(nn.Module):
    """Estimates the gradient of the expected cost of the words with respect to α, as a term beside the likelihood.

    Costs are −log p of the words. Without an entropy bonus and with weight 1 the sum of the likelihood's own gradient
    and the estimate is the gradient of the expected cost of a caption.

    Args:
        weight: λ_r, factor of the estimate.
        entropy: λ_e, weight of a bonus for spread-out α.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, weight: float = 1.0, entropy: float = 0.0) -> None:
        super().__init__()
        require_number("weight", weight, least=0, of="the estimator")
        require_number("entropy", entropy, least=0, of="the estimator")
        self.weight, self.entropy = weight, entropy

    def check(self, attention: HardAttention, places: int) -> None:
        """Check that the estimator works with a mechanism on a grid of so many places.

        Raises:
            InputError: if not; the message names the option.
        """

    def copies(self, places: int, steps: int) -> int:
        """Number of consecutive copies of each caption of so many steps that it needs in a batch."""
        return 1

    def focus(self, decoder: Decoder, memory: Memory, heard: Tensor, mask: Tensor) -> Tensor | None:
        """(N, T, L) the weights that captions use in place of samples; None if they sample.

        `decoder` is in training mode, `memory` that of its images; `heard` (N, T) are its inputs, with the copies of
        each caption, and `mask` is True if there is a word.
        """
        return None

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        """−log p of the words (B, T) without gradient, glimpses with a time axis, and the mask of words (B, T)."""
        raise NotImplementedError


def require_same_coins(estimator: Estimator, attention: HardAttention) -> None:
    """Raise an `InputError` if several passes of a decoder would not toss the same coins."""
    if attention.probability < 1 and attention.coin != "image":
        raise InputError(
            f"coin is '{attention.coin}', but {type(estimator).__name__} needs the same coins for all passes of a "
            "caption; use coin 'image', or probability 1"
        )


def assigned(nll: Tensor, mask: Tensor, reward: Reward) -> Tensor:
    """(B, T) the cost assigned to each word's sample, from the words' −log p (B, T), 0 where the mask is False."""
    if reward == "step":
        return nll
    if reward == "to_go":
        return nll.flip(1).cumsum(dim=1).flip(1)
    total = nll.sum(dim=1, keepdim=True)
    return (total if reward == "caption" else total / mask.sum(dim=1, keepdim=True)).expand_as(nll)


def entropies(glimpses: Glimpse, mask: Tensor) -> Tensor:
    """(B, T) the entropy of α in nats, 0 where the mask is False."""
    return -(glimpses.weights * glimpses.weights.clamp(min=1e-12).log()).sum(dim=-1) * mask


def diagnose(advantage: Tensor, baseline: Tensor, entropy: Tensor, drawn: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The diagnostics of `Estimate`, from parts (B, T); `drawn` may hold weights of samples instead of True."""
    draws, words = processes.mean(torch.stack([drawn.sum(), mask.sum().to(drawn.sum().dtype)]))
    draws = torch.where(draws > 0, draws, 1.0)
    advantages = (advantage * drawn).sum() / draws
    return {
        "advantage": advantages,
        "advantage_variance": ((advantage - processes.mean(advantages)).square() * drawn).sum() / draws,
        "baseline": (baseline * mask).sum() / words,
        "entropy": entropy.detach().sum() / words,
        "drawn": drawn.sum() / words,
    }
