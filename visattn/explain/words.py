"""Relevance of each place to a generated word.

For the Transformer decoder it is that of Chefer, Gur and Wolf 2021 (see `visattn.explain.relevance`): self-attention to
the words, cross-attention to the places, and places that do not attend to each other. Their y is log p(word).

Recurrent decoders have no such paper; what is done for them is ours. A word is due to the glimpse at its own step, and
to the earlier ones through the state. Each glimpse is a sum over places, context = Σ_h Σ_i α_hi u_hi (with one head,
u_i is the annotation vector), so eq. 5 applies to it as it stands, and the glimpses' parts are added up:

    relevance of place i for word t = Σ_{s ≤ t} E_h((∂ log p(word_t) / ∂α_{s,h,i} ∘ α_{s,h,i})⁺)

where ∂/∂α goes all the ways from the glimpse to the word: through β, the state, and the later glimpses. There is no R
to propagate, since glimpses do not attend to glimpses. For hard attention α is what was really used, one place's 1
(`focus`); it may speak against the word, and then no place is relevant.

An ensemble's is the mean of its members', each weighted by its share of the word's probability: for recurrent decoders
the same as the sum above over the glimpses of all, as ∂ log p̄ / ∂α = (p_m / Σ p) ∂ log p_m / ∂α for member m.

Axis letters: those of `visattn.attention.contract`, and T words.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visattn.attention import Glimpse, HeadsMemory, Memory
from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.reading import intercepted
from visattn.explain.relevance import normalised, positive_part
from visattn.models import Decoder, Ensemble, EnsembleMemory, RecurrentDecoder, TransformerDecoder
from visattn.models.mode import evaluating
from visattn.vocabulary import PAD


def word_relevance(decoder: Decoder, memory: Memory, previous: Tensor, words: Tensor) -> Tensor:
    """How much each place speaks for each word of given captions.

    The decoder is run in evaluation mode, as teacher forcing runs it. Attention that draws its places in evaluation
    draws here, too, other places than it drew for the caption.

    Args:
        decoder: recurrent, around any spatial attention, a Transformer, or an ensemble of these.
        memory: of B images.
        previous: (N, T) the words before each, START first; as many captions of each image, in a row.
        words: (N, T) the words to explain; PAD has no relevance.

    Returns:
        (N, T, L) float32, not negative, in the unit of log p; nothing is rescaled.

    Raises:
        InputError: for any other decoder.
    """
    explain = _explanation(decoder)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(decoder):
        memory = memory.map(lambda part: part.detach().clone())
        relevance = explain(decoder, memory, previous.clone(), words.clone())
    return relevance.masked_fill(words.unsqueeze(2) == PAD, 0)


def caption_relevance(captioner: Any, images: Tensor, words: list[list[str]]) -> list[np.ndarray]:
    """Relevance of places to each word of given captions, (T, H, W) for each image; see `word_relevance`.

    Args:
        captioner: a `visattn.decoding.Captioning` model.
        images: (N, 3, h, w) uint8, of the captioner's `image_size`.
        words: a caption for each image.
    """
    with torch.no_grad():
        memory, tokens = captioner.given(images, words)
    found = word_relevance(captioner.decoder, memory, tokens[:, :-1], tokens[:, 1:]).unflatten(2, memory.grid)
    return [maps[: len(line)].cpu().numpy() for maps, line in zip(found, words, strict=True)]


def _log_probs(logits: Tensor, words: Tensor) -> Tensor:
    """(T,) the log-probability of each word, summed over the captions, which do not know each other."""
    return logits.float().log_softmax(dim=-1).gather(2, words.unsqueeze(2)).sum(dim=(0, 2))


def _of_recurrent(decoder: RecurrentDecoder, memory: Memory, previous: Tensor, words: Tensor) -> Tensor:
    glimpses: list[tuple[Tensor, Glimpse]] = []
    probes: list[Tensor] = []

    def seen(_: torch.nn.Module, given: tuple[Tensor, Memory, int], glimpse: Glimpse) -> Glimpse:
        """Keep the glimpse as the mechanism gives it, before any gate; a zero is added to take gradients by."""
        glimpses.append((given[0], glimpse))
        probes.append(torch.zeros_like(glimpse.context).requires_grad_())
        return glimpse._replace(context=glimpse.context + probes[-1])

    state, logits = decoder.init(memory, len(previous) // len(memory.values)), []
    with decoder.attention.register_forward_hook(seen):
        for token in previous.unbind(dim=1):
            after, _, state = decoder.step(state, token)
            logits.append(after)
    terms = [decoder.attention.terms(query, memory, glimpse) for query, glimpse in glimpses]
    out = memory.values.new_zeros(*words.shape, memory.values.shape[1], dtype=torch.float32)
    for t, log_prob in enumerate(_log_probs(torch.stack(logits, dim=1), words)):
        gradients = torch.autograd.grad(log_prob, probes[: t + 1], retain_graph=True)
        for (weights, vectors), by_context in zip(terms, gradients, strict=False):
            by_weight = torch.einsum("bkd,bhld->bkhl", memory.per_image(by_context), vectors).flatten(0, 1)
            out[:, t] += positive_part(weights.unsqueeze(2), by_weight.unsqueeze(2)).squeeze(1).detach()
    return out


def _of_transformer(decoder: TransformerDecoder, memory: HeadsMemory, previous: Tensor, words: Tensor) -> Tensor:
    calls: list[AttentionCall] = []

    def on_call(call: AttentionCall) -> None:
        call.out.requires_grad_()  # where all parameters are frozen it does not yet
        calls.append(call)

    with intercepted(on_call):
        logits = decoder.logits(memory, previous)
    count, length = words.shape
    weights = [_by_caption(call.weights(), length) for call in calls]
    eye = torch.eye(length, dtype=torch.float32, device=words.device).expand(count, -1, -1)
    out = memory.values.new_zeros(count, length, memory.values.shape[1], dtype=torch.float32)
    for t, log_prob in enumerate(_log_probs(logits, words)):
        gradients = torch.autograd.grad(log_prob, [call.out for call in calls], retain_graph=True)
        parts = [
            positive_part(a, _by_caption(call.gradient(of_out), length))
            for a, call, of_out in zip(weights, calls, gradients, strict=True)
        ]
        by_word, by_place = eye, torch.zeros_like(out)
        for of_words, of_places in zip(parts[::2], parts[1::2], strict=True):
            by_word, by_place = by_word + of_words @ by_word, by_place + of_words @ by_place  # eq. 6 and 7
            by_place = by_place + normalised(by_word).transpose(1, 2) @ of_places  # eq. 10, places as they were
        out[:, t] = by_place[:, t]
    return out


def _of_ensemble(decoder: Ensemble, memory: EnsembleMemory, previous: Tensor, words: Tensor) -> Tensor:
    pairs = list(zip(decoder.members, memory.members, strict=True))
    with torch.no_grad():
        logits = torch.stack([member(own, previous)[0].float() for member, own in pairs])
        log_probs = logits.log_softmax(dim=-1).gather(3, words.expand(len(pairs), -1, -1).unsqueeze(3))
        shares = log_probs.softmax(dim=0)  # (M, N, T, 1)
    relevance = [_explanation(member)(member, own, previous, words) for member, own in pairs]
    return (shares * torch.stack(relevance)).sum(dim=0)


_HOW: dict[type[Decoder], Callable[..., Tensor]] = {
    RecurrentDecoder: _of_recurrent,
    TransformerDecoder: _of_transformer,
    Ensemble: _of_ensemble,
}


def _explanation(decoder: Decoder) -> Callable[..., Tensor]:
    """How the words of a decoder are explained; an `InputError` if no way is defined."""
    for kind, explain in _HOW.items():
        if isinstance(decoder, kind):
            return explain
    raise InputError(
        "the relevance of words is defined for recurrent and Transformer decoders, not for "
        f"{type(decoder).__name__}; use its attention"
    )


def _by_caption(weights: Tensor, length: int) -> Tensor:
    """Of images (B, heads, K T, L), whose captions stand together, to captions (N, heads, T, L)."""
    return weights.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)
