"""Search methods: greedy, sampling, beam. Searches do not depend on the decoder.

Axis letters: B images, K captions of each that grow at once, V words.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.vocabulary import END, PAD, START, UNKNOWN

MOST = 1000  # beams of an image at once: memory and time grow with their number
MOST_DRAWN = 100_000  # captions of an image


class Choice(NamedTuple):
    """How the captions of each image go on.

    Attributes:
        parents: (B, K) the number of the caption that each is the continuation of; None if each continues itself.
        tokens: (B, K) what is added to it.
        ends: (B, K) True if the caption of this number, as it was before the step, is complete with END.
    """

    parents: Tensor | None
    tokens: Tensor
    ends: Tensor


class Search:
    """The contract: `extend` at every step, `order` at the end.

    Attributes:
        width: K, the captions of an image that grow at once.
        best: how many of an image are handed back, at most as many as grow.
    """

    width = 1
    best = 1

    def start(self, images: int, device: torch.device) -> Tensor:
        """(B, K) log-probabilities before the first word; (B, 1) where all K continue one and the same beginning."""
        return torch.zeros(images, self.width, dtype=torch.float32, device=device)

    def forbidden(self, t: int) -> list[int]:
        """Tokens that are never chosen at step t: what is no word, and END before the first word."""
        return [PAD, START, UNKNOWN, END] if t == 0 else [PAD, START, UNKNOWN]

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        """Choose the next tokens.

        Args:
            totals: (B, K) log-probability of each caption so far; −∞ where it has ended or there is none.
            log_probs: (B, K, V) of each token after it.
            t: the number of the step, from 0.
            images: (B,) which of all images these are; those that are done are left out.
        """
        raise NotImplementedError

    def score(self, totals: Tensor, length: int) -> Tensor:
        """What captions of so many tokens, END counted, are compared by, given their log-probabilities."""
        return totals

    def order(self, scores: Tensor) -> Tensor:
        """Which captions are handed back: (B, best) numbers among T K.

        Scores are (B, T, K), of the caption that each was when it was complete, or cut, at a step; −∞ where it was not.
        By default each of the K captions that grew, in their order: one of them ended at one of the T steps.
        """
        width = scores.shape[2]
        return scores.argmax(dim=1) * width + torch.arange(width, device=scores.device)


class Greedy(Search):
    """The most probable token of each step."""

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        tokens = log_probs.argmax(dim=-1)
        return Choice(None, tokens, tokens == END)


class Sampling(Search):
    """Tokens drawn with their probability, by PyTorch's random numbers: `torch.manual_seed` makes it repeatable.

    Args:
        count: captions drawn for each image, independent of each other; all are handed back.
        temperature: divides the log-probabilities: above 1 it evens them out, towards 0 it becomes greedy.
        top_k: the number of most probable tokens that are drawn from; 0 for all (Fan et al. 2018).
        top_p: the least share of the probability that is drawn from: the most probable tokens, until together they
            have it (nucleus sampling, Holtzman et al. 2020); 1 for all. After temperature and `top_k`.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, count: int = 1, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> None:
        for name, right, rule in (
            ("count", 1 <= count <= MOST_DRAWN, f"at least 1 and at most {MOST_DRAWN}"),
            ("temperature", 0 < temperature < math.inf, "more than 0; for the limit take greedy decoding"),
            ("top_k", top_k >= 0, "at least 1, or 0 for all words"),
            ("top_p", 0 < top_p <= 1, "more than 0 and at most 1"),
        ):
            if not right:
                raise InputError(f"{name} is {locals()[name]}; sampling needs {rule}")
        self.width = self.best = count
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        logits = log_probs.detach() / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        probabilities = logits.softmax(dim=-1)
        if self.top_p < 1:
            ordered, index = probabilities.sort(dim=-1, descending=True)
            needed = ordered.cumsum(dim=-1) - ordered < self.top_p  # what lies before a token is not enough yet
            probabilities = torch.zeros_like(ordered).scatter(-1, index, ordered * needed)
        # The first to arrive, where token i comes at the rate pᵢ: a draw, without the checks of torch.multinomial.
        tokens = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1)
        return Choice(None, tokens, tokens == END)


class BeamSearch(Search):
    """The K most probable beginnings are kept at every step.

    A caption that ends among the K most probable leaves the beam and is kept aside, so it takes no place from those
    that go on, and none of them can push it out. The search of an image continues until no beginning can still become
    better than the `best` complete ones, so where K is the number of all beginnings, it is exhaustive. Captions that
    were cut at the greatest length come after all that ended.

    Args:
        size: K.
        length_penalty: captions are compared by log p / n^penalty, n tokens with END: 0 compares probabilities, which
            favours short captions, 1 the mean of the log-probabilities; 0.7 was best on Flickr8k's validation split.
        best: captions handed back for each image, the best first.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, size: int = 5, length_penalty: float = 0.7, best: int = 1) -> None:
        if not 1 <= size <= MOST:
            raise InputError(f"the beam's size is {size}; it must be at least 1 and at most {MOST}")
        if not 1 <= best <= size:
            raise InputError(f"best is {best}; a beam of {size} can hand back from 1 to {size} captions of an image")
        if not 0 <= length_penalty <= MOST:
            raise InputError(f"length_penalty is {length_penalty}; it must be at least 0 and at most {MOST}")
        self.width, self.best, self.length_penalty = size, best, length_penalty

    def start(self, images: int, device: torch.device) -> Tensor:
        # All captions begin alike, so one is enough.
        return torch.zeros(images, 1, dtype=torch.float32, device=device)

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        # At most K of the best 2K end, so K are left that go on; all of them are among the best 2K of their captions.
        wanted = 2 * self.width
        likely, tokens = log_probs.topk(min(wanted, log_probs.shape[-1]), dim=-1)
        of_each = likely.shape[-1]
        candidates = F.pad((totals.unsqueeze(-1) + likely).flatten(1), (0, wanted), value=float("-inf"))
        scores, index = candidates.topk(wanted, dim=-1)
        real = index < of_each * totals.shape[1]  # where there are fewer, PAD after the first caption: improbable
        parents = torch.where(real, index // of_each, 0)
        tokens = torch.where(real, tokens.flatten(1).gather(1, index * real), PAD)
        end = tokens == END
        complete = (end & (scores > float("-inf")))[:, : self.width]
        ends = torch.zeros_like(totals).scatter_add(1, parents[:, : self.width], complete.to(totals.dtype)) > 0
        going = end.int().argsort(dim=-1, stable=True)[:, : self.width]
        return Choice(parents.gather(1, going), tokens.gather(1, going), ends)

    def score(self, totals: Tensor, length: int) -> Tensor:
        return totals / length**self.length_penalty

    def order(self, scores: Tensor) -> Tensor:
        return scores.flatten(1).topk(self.best, dim=-1).indices


def likeliest(logits: Tensor) -> Tensor:
    """The first choices (B, T) given the true words, of the tokens that a caption may say there."""
    first, later = (torch.tensor(Greedy().forbidden(t), device=logits.device) for t in (0, 1))
    allowed = logits.index_fill(2, later, float("-inf"))
    allowed[:, 0, first] = float("-inf")
    return allowed.argmax(dim=-1)
