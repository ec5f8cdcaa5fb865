"""The decoding loop over a decoder's `step`."""

from typing import NamedTuple

import torch
from torch import Tensor

from visattn.attention import Memory
from visattn.decoding.search import Greedy, Search
from visattn.models.decoder import Decoder
from visattn.vocabulary import END, PAD, START

_CUT = 1e6  # penalty that ranks truncated captions behind complete ones


class Decoded(NamedTuple):
    """Generated captions, N = B n: the best n per image, consecutive; if there are fewer, the best is repeated.

    Attributes:
        tokens: (N, T) the words and END, then PAD; without START. A truncated caption has no END.
        log_probs: (N, T) log-probability of each token among the allowed ones (never PAD, START or UNKNOWN; no END
            before the first word); 0 at PAD.
        weights: (N, T, L) attention for each token, α; 0 at PAD.
        focus: (N, T, L) the weights that actually multiplied the annotation vectors; 0 at PAD.
        places_log_prob: (N, T) log-probability of the sampled place; 0 if none was sampled, or at PAD.
        gates: (N, T) the decoder's gate on the context, β; 0 at PAD.
        cut: (N,) log-probability of not ending where a caption was truncated; 0 if it ended.
    """

    tokens: Tensor
    log_probs: Tensor
    weights: Tensor
    focus: Tensor
    places_log_prob: Tensor
    gates: Tensor
    cut: Tensor

    @property
    def log_prob(self) -> Tensor:
        """(N,) log-probability of the whole captions under plain sampling."""
        return self.log_probs.sum(dim=1) + self.cut


class _Step(NamedTuple):
    """The results of a step, for the images (B′,) still being searched and their K captions.

    Attributes:
        images: (B′,) indices of the images.
        parents: (B′, K) index of the caption that each caption continues.
        tokens: (B′, K) the token added.
        log_probs: (B′, K) its log-probability.
        end: (B′, K) log-probability of END after each caption as it was before the step.
        scores: (B′, K) score of the caption completed or truncated at this step; −∞ if there is none.
        weights: (B′, K, L) attention of each caption as it was before the step.
        focus: (B′, K, L) focus of each.
        places_log_prob: (B′, K) log-probability of the sampled places.
        gates: (B′, K) gates β.
    """

    images: Tensor
    parents: Tensor
    tokens: Tensor
    log_probs: Tensor
    end: Tensor
    scores: Tensor
    weights: Tensor
    focus: Tensor
    places_log_prob: Tensor
    gates: Tensor


def decode(
    decoder: Decoder,
    memory: Memory,
    search: Search | None = None,
    max_length: int = 20,
    no_repeat: int = 0,
    objects: Tensor | None = None,
) -> Decoded:
    """Generate captions of each image of a memory.

    A caption has at least one word, and is truncated after `max_length` words. What depends only on the image is
    computed in `decoder.prepare`, and not copied for each caption. Images whose search is over are left out of further
    steps.

    Gradients flow, unless the caller is in `torch.no_grad` or `torch.inference_mode`.

    Args:
        decoder: the decoder, in training or evaluation mode.
        memory: the result of `decoder.prepare`, B rows.
        search: search method; greedy by default.
        max_length: maximum number of words, not counting END; at least 1.
        no_repeat: n-grams of this length occur at most once in a caption; 0 allows all.
        objects: (V,) True for tokens that name an object; for a search with `caution`, which needs them.

    Raises:
        ValueError: if the search has `caution`, and there are no `objects`.
    """
    search = search or Greedy()
    if search.caution and objects is None:
        raise ValueError("a search with caution needs to know which tokens name objects")
    device = memory.values.device
    images = torch.arange(len(memory.values), device=device)
    totals = search.start(len(images), device)
    width = totals.shape[1]  # of the step; all but the first have K captions
    state = decoder.init(memory, width)
    complete = totals.new_full((len(images), search.best), float("-inf"), dtype=torch.double)  # scores, the best first
    doubt = torch.zeros_like(totals)  # log-probability of the least probable object named so far
    said = torch.full((len(images), width, 1), START, device=device)  # START and the words
    steps: list[_Step] = []
    for t in range(max_length + 1):
        logits, glimpse, state = decoder.step(state, said[..., -1].flatten())
        seen = (part.unflatten(0, totals.shape) for part in glimpse[1:])
        log_probs = _allowed(logits.float(), search.forbidden(t)).log_softmax(dim=-1).unflatten(0, totals.shape)
        if no_repeat:
            log_probs = log_probs.masked_fill(repeats(said[..., 1:], no_repeat, log_probs.shape[-1]), float("-inf"))
        choice = search.extend(totals, log_probs, t, images)
        own = torch.arange(width, device=device).expand_as(totals)
        parents = own if choice.parents is None else choice.parents
        chosen = log_probs.flatten(1).gather(1, parents * log_probs.shape[-1] + choice.tokens)
        end = log_probs[..., END]
        exact = totals.double()
        scores = search.score(exact + end.detach(), t + 1) + search.caution * doubt
        missed = search.score(exact, t) + search.caution * doubt - _CUT if t == max_length else float("-inf")
        scores = torch.where(choice.ends & (exact > float("-inf")), scores, missed)
        seen = (_widened(part, search.width) for part in (end, scores, *seen))
        steps.append(_Step(images, parents, choice.tokens, chosen, *seen))

        complete = torch.cat([complete, scores], dim=1).topk(search.best, dim=1).values
        totals = (totals.gather(1, parents) + chosen.detach()).masked_fill(choice.tokens == END, float("-inf"))
        doubt = doubt.gather(1, parents)
        if objects is not None:
            doubt = torch.where(objects[choice.tokens], doubt.minimum(chosen.detach()), doubt)
        possible = (search.score(totals.double(), max_length + 1) + search.caution * doubt).amax(dim=1)
        searched = (possible > complete[:, -1]).nonzero().squeeze(1)
        if not len(searched) or t == max_length:
            break
        said = torch.cat([said.take_along_dim(parents.unsqueeze(-1), dim=1), choice.tokens.unsqueeze(-1)], dim=-1)
        rows = torch.arange(len(images), device=device).unsqueeze(1) * width + parents
        width = search.width
        if 2 * len(searched) <= len(images):
            state = state.rows(rows[searched].flatten(), searched)
            images, totals, doubt, complete, said = (part[searched] for part in (images, totals, doubt, complete, said))
        elif choice.parents is not None:
            state = state.rows(rows.flatten())
    return _trace(steps, search, len(memory.values))


def _allowed(logits: Tensor, forbidden: list[int]) -> Tensor:
    """Logits (N, V) with −∞ for forbidden tokens; in place, since they are not used elsewhere."""
    return logits.index_fill_(1, torch.tensor(forbidden, device=logits.device), float("-inf"))


def _widened(part: Tensor, width: int) -> Tensor:
    """Results of a step for each caption (B, K, …); if all continue one (B, 1, …), repeated for each."""
    return part.expand(-1, width, *part.shape[2:])


def repeats(said: Tensor, run: int, words: int) -> Tensor:
    """(…, V) True for tokens that would repeat an n-gram of this length in the words so far (…, t)."""
    banned = torch.zeros(*said.shape[:-1], words, dtype=torch.bool, device=said.device)
    if said.shape[-1] < run:
        return banned
    runs = said.unfold(-1, run, 1)  # (…, t − run + 1, run)
    latest = said[..., said.shape[-1] - run + 1 :].unsqueeze(-2)
    begun = (runs[..., :-1] == latest).all(dim=-1)
    last = runs[..., -1].where(begun, PAD)
    return banned.scatter(-1, last, True).index_fill(-1, torch.tensor([PAD, END], device=said.device), False)


def _trace(steps: list[_Step], search: Search, images: int) -> Decoded:
    """Trace the returned captions from their last words to their first."""
    whole = [step if len(step.images) == images else _spread(step, images) for step in steps]
    trace = _Step(*(torch.stack(part, dim=1) for part in zip(*whole, strict=True)))  # (B, T, K, …)
    picked = search.order(trace.scores)  # (B, n)
    scores = trace.scores.flatten(1).gather(1, picked)
    picked = torch.where(scores > float("-inf"), picked, picked[:, :1])
    last, slot = picked // search.width, picked % search.width
    final = trace.end.flatten(1).gather(1, picked)
    complete = trace.scores.flatten(1).gather(1, picked) > -_CUT / 2
    found = []  # token, log-probability and slot at each step, the last first
    going = slot  # index among the K after the current step
    for t in reversed(range(len(steps))):
        before, closing = last > t, (last == t) & complete
        token = torch.where(before, trace.tokens[:, t].gather(1, going), torch.where(closing, END, PAD))
        word = trace.log_probs[:, t].gather(1, going)
        log_prob = torch.where(before, word, torch.where(closing, final, 0.0))
        going = torch.where(before, trace.parents[:, t].gather(1, going), slot)
        found.append((token, log_prob, going))
    tokens, log_probs, slots = (torch.stack(part[::-1], dim=2) for part in zip(*found, strict=True))  # (B, n, T)
    said = tokens != PAD
    length = int(said.sum(dim=-1).max())
    image, step = torch.arange(images, device=slots.device), torch.arange(length, device=slots.device)
    rows = (image[:, None, None], step, slots[..., :length])
    said = said[..., :length]
    seen = [part[rows] * said[..., None] for part in (trace.weights, trace.focus)]
    seen += [part[rows] * said for part in (trace.places_log_prob, trace.gates)]
    # In two steps, since the gradient of log 0 is NaN even where it is not used.
    open_end = torch.where(complete, -1.0, final.clamp(max=-1e-6))
    cut = torch.where(complete, 0.0, torch.log1p(-open_end.exp()))
    return Decoded(*(part.flatten(0, 1) for part in (tokens[..., :length], log_probs[..., :length], *seen, cut)))


def _spread(step: _Step, images: int) -> _Step:
    """Expand a step of some images to all; the others are empty."""
    parts = (part.new_zeros(images, *part.shape[1:]).index_copy(0, step.images, part) for part in step)
    whole = _Step(*parts)
    nothing = torch.ones(images, dtype=torch.bool, device=step.images.device).index_fill(0, step.images, False)
    return whole._replace(scores=whole.scores.masked_fill(nothing.unsqueeze(1), float("-inf")))
