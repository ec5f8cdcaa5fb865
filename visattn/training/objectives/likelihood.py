"""Caption likelihood and its regularisers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visattn.attention import Glimpse, Memory, prescribed
from visattn.errors import require_number
from visattn.models.decoder import Decoder
from visattn.training import processes
from visattn.training.objectives.estimator import Estimator, Rerun
from visattn.vocabulary import PAD


class CaptionSums(NamedTuple):
    """Losses of each caption (B,), summed over its tokens.

    Attributes:
        loss: the objective without REINFORCE.
        cross_entropy: the negative log-likelihood, without smoothing.
        doubly_stochastic: the penalty before its weight.
        supervision: −Σ β log α before its weight.
        correct: number of tokens predicted correctly under teacher forcing.
        tokens: number of tokens.
    """

    loss: Tensor
    cross_entropy: Tensor
    doubly_stochastic: Tensor
    supervision: Tensor
    correct: Tensor
    tokens: Tensor


class CaptionLosses(NamedTuple):
    """Scalars per token of the batch; only `loss` and `reinforce` have gradients.

    With several processes each has its share; their mean is the value for the batch (`visattn.training.processes`).

    Attributes:
        loss: the objective.
        cross_entropy: the negative log-likelihood, without smoothing.
        doubly_stochastic: the penalty before its weight.
        supervision: −Σ β log α before its weight.
        accuracy: share of tokens predicted correctly under teacher forcing.
        reinforce: the part of `loss` whose gradient is that of REINFORCE, or None; its value is meaningless.
        diagnostics: values to log about that part.
    """

    loss: Tensor
    cross_entropy: Tensor
    doubly_stochastic: Tensor
    supervision: Tensor
    accuracy: Tensor
    reinforce: Tensor | None
    diagnostics: dict[str, Tensor]


def doubly_stochastic_penalty(weights: Tensor, mask: Tensor) -> Tensor:
    """Σᵢ (1 − Σₜ αₜᵢ)² of each caption (Xu 2015, eq. 14): every place should get a total weight of 1.

    Args:
        weights: (B, T, L) α.
        mask: (B, T) True if there is a token; α of padding does not count.

    Returns:
        (B,) the penalty, summed over places, not averaged.
    """
    attended = (weights * mask.unsqueeze(-1)).sum(dim=1)
    return (1 - attended).square().sum(dim=-1)


def supervision_penalty(weights: Tensor, regions: Tensor) -> Tensor:
    """−Σₜ Σᵢ βₜᵢ log αₜᵢ of each caption: α should be β (Liu et al. 2017, "Attention correctness in … captioning").

    Args:
        weights: (B, T, L) α.
        regions: (B, T, L) β, which sums to 1 over the places for a word whose region is known, and is 0 for others.

    Returns:
        (B,) the penalty, summed over words.
    """
    return -(regions * weights.float().clamp_min(1e-8).log()).sum(dim=(1, 2))


class CaptionLoss(nn.Module):
    """Cross-entropy of the captions, with regularisation of the attention.

    loss = Σ_captions [Σₜ −log p(yₜ) + λ Σᵢ (1 − Σₜ αₜᵢ)²] / number of tokens. But for the divisor it is the paper's
    sum over captions, so λ has the paper's scale: it weighs a caption's penalty against the caption's whole
    log-likelihood, whatever the size of the batch, the length of the captions, the padding or the number of processes.
    With L places and T words the penalty of a uniform map is L (1 − T/L)²: if words name small objects among many
    places, a large λ blurs maps. Supervision (Liu et al. 2017) is added to the sum in the same way, only in training,
    if the data has regions of words: COCO outlines (`Photographs.instances`), generated scenes.

    Args:
        doubly_stochastic: λ; 0 disables the penalty. Its gradient reaches α, whether or not places are sampled.
        label_smoothing: share of the probability that is spread over all words.
        supervision: weight of −Σ β log α; 0 disables it.
        reinforce: the estimator that trains sampled attention, such as `Reinforce`; only used in training mode.
    """

    def __init__(
        self,
        doubly_stochastic: float = 1.0,
        label_smoothing: float = 0.0,
        reinforce: Estimator | None = None,
        supervision: float = 0.0,
    ) -> None:
        super().__init__()
        require_number("supervision", supervision, least=0)
        self.doubly_stochastic = doubly_stochastic
        self.label_smoothing = label_smoothing
        self.supervision = supervision
        self.reinforce = reinforce

    def copies(self, places: int, steps: int) -> int:
        """Number of consecutive copies of each caption needed in a training batch, for so many places and steps.

        Raises:
            InputError: if the estimator cannot serve so many.
        """
        return 1 if self.reinforce is None else self.reinforce.copies(places, steps)

    def placed(self, decoder: Decoder, memory: Memory, heard: Tensor, targets: Tensor) -> Memory:
        """The memory for a training batch, with the places that the estimator prescribes, if it does.

        Args:
            decoder: in training mode.
            memory: of the batch's images.
            heard: (B, T) the decoder's inputs.
            targets: (B, T) the words, PAD after END.
        """
        focus = None if self.reinforce is None else self.reinforce.focus(decoder, memory, heard, targets != PAD)
        return memory if focus is None else prescribed(memory, focus)

    def forward(
        self,
        logits: Tensor,
        glimpses: Glimpse,
        targets: Tensor,
        regions: Tensor | None = None,
        rerun: Rerun | None = None,
    ) -> CaptionLosses:
        """The loss from logits (B, T, V), glimpses with a time axis, and target words (B, T), PAD after END.

        Regions are those of `CaptionBatch`, (B, T, L); `rerun` serves estimators that need a second pass of the decoder
        (`rerun_of`). The batch is shared by all processes, so all must call this method.
        """
        sums, nll = self._sums(logits, glimpses, targets, regions)
        tokens = processes.mean(sums.tokens.sum())
        reinforce, diagnostics = None, {}
        if self.reinforce is not None and self.training:
            surrogate, diagnostics, weights = self.reinforce(nll.detach(), glimpses, targets != PAD, rerun)
            reinforce = surrogate.sum() / tokens
            if weights is not None:
                sums = CaptionSums(*(part * weights for part in sums[:5]), sums.tokens)
        loss, cross_entropy, penalty, supervision, accuracy = (part.sum() / tokens for part in sums[:5])
        if reinforce is not None:
            loss = loss + reinforce
        detached = (part.detach() for part in (cross_entropy, penalty, supervision))
        return CaptionLosses(loss, *detached, accuracy, reinforce, diagnostics)

    def sums(self, logits: Tensor, glimpses: Glimpse, targets: Tensor) -> CaptionSums:
        """The losses of each caption without REINFORCE; does not wait for other processes."""
        return self._sums(logits, glimpses, targets)[0]

    def _sums(
        self, logits: Tensor, glimpses: Glimpse, targets: Tensor, regions: Tensor | None = None
    ) -> tuple[CaptionSums, Tensor]:
        """As `sums`, and −log p of each word (B, T), 0 at PAD."""
        mask = targets != PAD
        log_probs = logits.float().log_softmax(dim=-1)
        nll = _words_nll(log_probs, targets)
        loss = cross_entropy = nll.sum(dim=1)
        penalty = doubly_stochastic_penalty(glimpses.weights, mask)
        if self.label_smoothing:
            even = -(log_probs.mean(dim=-1) * mask).sum(dim=1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        if self.doubly_stochastic:
            loss = loss + self.doubly_stochastic * penalty
        supervision = torch.zeros_like(penalty)
        if self.supervision and regions is not None:
            supervision = supervision_penalty(glimpses.weights, regions)
            loss = loss + self.supervision * supervision
        correct = ((log_probs.argmax(dim=-1) == targets) & mask).sum(dim=1)
        return CaptionSums(loss, cross_entropy, penalty, supervision, correct, mask.sum(dim=1)), nll


def rerun_of(
    decoder: Callable[[Memory, Tensor], tuple[Tensor, Glimpse]], memory: Memory, heard: Tensor, targets: Tensor
) -> Rerun:
    """A second pass of a decoder with hard attention, with the same inputs and given weights in place of samples.

    Args:
        decoder: previous words to logits and glimpses.
        memory: of the batch's images.
        heard: (B, T) the decoder's inputs.
        targets: (B, T) the words, PAD after END.
    """
    frozen = memory.map(Tensor.detach)

    def rerun(focus: Tensor) -> Tensor:
        logits, _ = decoder(prescribed(frozen, focus), heard)
        return _words_nll(logits.float().log_softmax(dim=-1), targets)

    return rerun


def _words_nll(log_probs: Tensor, targets: Tensor) -> Tensor:
    """−log p of each word (B, T), 0 at PAD, from log p of all (B, T, V)."""
    nll = F.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="none")
    return nll.view_as(targets)
