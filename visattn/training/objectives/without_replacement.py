"""REINFORCE with different sequences of places, sampled without replacement (Kool, van Hoof and Welling 2020)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.attention import Glimpse, HardAttention, Memory, SampledMemory, prescribed
from visattn.errors import InputError, require_number
from visattn.models.decoder import Decoder
from visattn.training.objectives.estimator import (
    Estimate,
    Estimator,
    Rerun,
    Reward,
    diagnose,
    entropies,
    require_same_coins,
)


class WithoutReplacement(Estimator):
    """Σ_{s ∈ S} p(s) R(S, s) [f(s) − Σ_{s' ∈ S} p(s') R^{D∖s}(S, s') f(s')] ∇ log p(s) for K different sequences S.

    The unordered set policy gradient with its built-in baseline (Kool 2020, "Estimating gradients for discrete random
    variables by sampling without replacement"). s is a sequence of places for all words, f(s) its cost, and D the set
    of all sequences. R(S, s) = p^{D∖s}(S ∖ s) / p(S) is the leave-one-out ratio, where p(S) is the probability that
    sampling without replacement gives S; R^{D∖s}(S, s') is the same for S ∖ s and D ∖ s, and 1 for s' = s. The gradient
    of f is weighted by p(s) R(S, s), too. No sample is spent on a sequence twice; with K = |D| the gradient is exact.

    S comes from stochastic beam search (Kool 2019, "Stochastic beams and where to find them"), which costs two further
    passes of the decoder without gradient. The estimate needs teacher forcing, and is unbiased without dropout, which
    would differ between the passes.

    Args:
        draws: K, at least 2.
        weight: λ_r, factor of the estimate.
        entropy: λ_e, weight of a bonus for spread-out α.
        reward: only "caption": p(s) is that of a whole sequence, whose cost is that of all words.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, draws: int = 4, weight: float = 1.0, entropy: float = 0.0, reward: Reward = "caption") -> None:
        super().__init__(weight, entropy)
        require_number("draws", draws, least=2, of="sampling without replacement")
        if reward != "caption":
            raise InputError(
                f"reward is '{reward}'; WithoutReplacement weighs all places of a caption together, so use caption"
            )
        self.draws = draws

    def check(self, attention: HardAttention, places: int) -> None:
        require_same_coins(self, attention)

    def copies(self, places: int, steps: int) -> int:
        return self.draws

    def focus(self, decoder: Decoder, memory: Memory, heard: Tensor, mask: Tensor) -> Tensor:
        heard, mask = memory.per_image(heard), memory.per_image(mask)
        focus = memory.values.new_zeros(*heard.shape, memory.values.shape[1])
        images = torch.arange(len(heard), device=heard.device)
        if isinstance(memory, SampledMemory) and memory.drawn is not None:
            images = memory.drawn.nonzero().flatten()
        if len(images):
            parts = (part[images].flatten(0, 1) for part in (heard, mask))
            found = stochastic_beams(decoder, memory.rows(images), *parts, self.draws)
            focus[images] = found.unflatten(0, (len(images), -1)).to(focus.dtype)
        return focus.flatten(0, 1)

    def forward(self, nll: Tensor, glimpses: Glimpse, mask: Tensor, rerun: Rerun | None = None) -> Estimate:
        log_prob = torch.where(mask, glimpses.log_prob, 0.0).sum(dim=1)
        exists = glimpses.focus.detach().sum(dim=-1).gt(0).all(dim=1)
        sets = log_prob.detach().double().masked_fill(~exists, float("-inf")).unflatten(0, (-1, self.draws))
        drawn = (sets != 0).any(dim=1, keepdim=True)  # else the coin fell on α, and there is no sequence
        shares, of_others = leave_one_out(sets)
        shares = torch.where(drawn, self.draws * shares, 1.0).flatten().to(nll.dtype)
        costs = (nll * mask).sum(dim=1)
        baseline = torch.einsum("ckj,cj->ck", of_others, costs.double().unflatten(0, (-1, self.draws)))
        baseline = torch.where(drawn, baseline, costs.unflatten(0, (-1, self.draws))).flatten().to(nll.dtype)
        entropy = entropies(glimpses, mask)
        advantage = torch.where(exists, costs - baseline, 0.0)
        log_prob = torch.where(exists, log_prob, 0.0)
        surrogate = shares * (self.weight * advantage * log_prob - self.entropy * entropy.sum(dim=1))
        of_words = (part.unsqueeze(1).expand_as(nll) for part in (advantage, baseline))
        counted = (mask & drawn.repeat_interleave(self.draws, dim=0)) * shares.unsqueeze(1)
        return Estimate(surrogate, diagnose(*of_words, entropy * shares.unsqueeze(1), counted, mask), shares)


def leave_one_out(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """p(s) R(S, s), and p(s') R^{D∖s}(S, s'), for sets S of K different sequences.

    All ratios are of integrals ∫ a e^{−ax} Π (1 − e^{−p(s) x}) dx over s of S, or of S without one or two, with a the
    probability of everything outside S (Kool 2020, appendix B, with u = e^{−x}): the sequences of S arrive before x at
    rates p(s), and all others after it.

    Args:
        log_prob: (C, K) log p(s), double; −∞ for sequences that do not exist.

    Returns:
        (C, K) by s, whose sum over S has the mean 1, and (C, K, K) by s and s', whose sum over s' has.
    """
    rest = (1 - log_prob.exp().sum(dim=1)).clamp_min(1e-12).log()  # log a; a is 0 if S is D
    # With y = a x and t = log y; beyond these limits the integrand is below e⁻³⁶ of the whole.
    t = torch.linspace(-37, 4, 165, dtype=log_prob.dtype, device=log_prob.device)
    log_rate = (log_prob - rest.unsqueeze(1)).unsqueeze(2) + t  # (C, K, Q)
    arrived = torch.where(log_rate < -30, log_rate, (-(-log_rate.exp()).expm1()).log())
    arrived = arrived.masked_fill(log_prob.isinf().unsqueeze(2), 0.0)
    whole = arrived.sum(dim=1) + t - t.exp()  # (C, Q)
    without = whole.unsqueeze(1) - arrived
    of_set, of_one = whole.logsumexp(dim=-1), without.logsumexp(dim=-1)
    of_two = (without.unsqueeze(2) - arrived.unsqueeze(1)).logsumexp(dim=-1)  # (C, K, K)
    own = torch.eye(log_prob.shape[1], dtype=torch.bool, device=log_prob.device)
    ratio = torch.where(own, 0.0, of_two - of_one.unsqueeze(2))
    return (log_prob + of_one - of_set.unsqueeze(1)).exp(), (log_prob.unsqueeze(1) + ratio).exp()


@torch.no_grad()
def stochastic_beams(decoder: Decoder, memory: Memory, heard: Tensor, mask: Tensor, draws: int) -> Tensor:
    """K sequences of places for each caption, sampled without replacement (Kool 2019, Algorithm 1).

    Each is the path to one of the K largest leaves of a tree: the log-probability of a partial sequence is perturbed by
    Gumbel noise, given that its parent has the largest of its children's values. So only the K largest are kept at each
    step. A step is decoded twice, for α of the parents and with the places that were chosen.

    Args:
        decoder: with hard attention, in training mode.
        memory: of the images.
        heard: (N, T) the decoder's inputs, N = C K: each caption K times.
        mask: (N, T) True if there is a word.
        draws: K.

    Returns:
        (N, T, L) one-hot; 0 for sequences that do not exist, since there are fewer than K.
    """
    captions, places = len(heard) // draws, memory.values.shape[1]
    focus = torch.zeros(*heard.shape, places, device=heard.device)
    memory = prescribed(memory, focus)  # a view, which sees the places as they are filled in
    state = decoder.init(memory, len(heard) // len(memory.values))
    first = torch.arange(captions, device=heard.device).unsqueeze(1) * draws
    log_prob = torch.full((captions, draws), float("-inf"), device=heard.device)
    log_prob[:, 0] = 0.0  # one beginning, of which all are continuations
    perturbed = log_prob.clone()
    only = torch.full((places,), float("-inf"), device=heard.device)
    only[0] = 0.0  # padding has one place, so that it does not make sequences different
    for t in range(heard.shape[1]):
        _, glimpse, _ = decoder.step(state, heard[:, t])
        log_weights = torch.where(mask[:, t : t + 1], glimpse.weights.log(), only).unflatten(0, (captions, draws))
        children = log_prob.unsqueeze(2) + log_weights
        noisy = given_largest(children, perturbed.unsqueeze(2)).flatten(1)
        perturbed, index = noisy.topk(draws, dim=1)
        log_prob = children.flatten(1).gather(1, index)
        rows, place = (first + index // places).flatten(), (index % places).flatten()
        focus[:, : t + 1] = focus[rows, : t + 1]
        focus[:, t] = F.one_hot(place, places)
        state = decoder.step(state.rows(rows), heard[:, t])[2]
    return focus * log_prob.flatten().isfinite()[:, None, None]


def given_largest(log_prob: Tensor, largest: Tensor) -> Tensor:
    """Log-probabilities (…, L) with Gumbel noise, given the largest value (…, 1) of a row (Kool 2019, section 4.1).

    −∞ stays −∞, and so do all of a row whose largest value is.
    """
    noisy = log_prob - torch.empty_like(log_prob).exponential_().log()
    below = noisy - noisy.amax(dim=-1, keepdim=True)
    shift = largest - noisy + torch.log1p(-below.exp())
    shifted = largest - shift.clamp_min(0.0) - torch.log1p((-shift.abs()).exp())
    return shifted.masked_fill(log_prob.isinf() | largest.isinf(), float("-inf"))
