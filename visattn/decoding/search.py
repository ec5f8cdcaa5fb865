"""Search methods: greedy, sampling, beam. Searches do not depend on the decoder.

Axis letters: B images, K parallel captions per image, V words.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.errors import InputError, require_number
from visattn.vocabulary import END, PAD, START, UNKNOWN

MOST = 1000  # largest beam per image: memory and time grow with it
MOST_DRAWN = 100_000  # captions per image


class Choice(NamedTuple):
    """The choice of a step: how the captions of each image continue.

    Attributes:
        parents: (B, K) index of the caption that each continues; None if each continues itself.
        tokens: (B, K) the token added.
        ends: (B, K) True if the caption of this index, as it was before the step, is completed by END.
    """

    parents: Tensor | None
    tokens: Tensor
    ends: Tensor


class Search:
    """The interface: `extend` at every step, `order` at the end.

    Attributes:
        width: K, number of parallel captions per image.
        best: number of captions returned per image, at most K.
        caution: weight in the ranking of captions of the log-probability of the least probable object they name.
    """

    width = 1
    best = 1
    caution = 0.0

    def start(self, images: int, device: torch.device) -> Tensor:
        """(B, K) log-probabilities before the first word; (B, 1) if all K continue the same beginning."""
        return torch.zeros(images, self.width, dtype=torch.float32, device=device)

    def forbidden(self, t: int) -> list[int]:
        """Tokens never chosen at step t: special tokens, and END before the first word."""
        return [PAD, START, UNKNOWN, END] if t == 0 else [PAD, START, UNKNOWN]

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        """Choose the next tokens.

        Args:
            totals: (B, K) log-probability of each caption so far; −∞ if it has ended or does not exist.
            log_probs: (B, K, V) log-probability of each next token.
            t: the step number, from 0.
            images: (B,) indices of these images among all; finished images are left out.
        """
        raise NotImplementedError

    def score(self, totals: Tensor, length: int) -> Tensor:
        """Scores for ranking captions of this many tokens, including END, from their log-probabilities."""
        return totals

    def order(self, scores: Tensor) -> Tensor:
        """Indices (B, best) among T K of the captions to return.

        Scores are (B, T, K), of each caption completed or truncated at a step; −∞ otherwise. By default each of the K
        captions in order: each ended at one of the T steps.
        """
        width = scores.shape[2]
        return scores.argmax(dim=1) * width + torch.arange(width, device=scores.device)


class Greedy(Search):
    """The most probable token of each step."""

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        tokens = log_probs.argmax(dim=-1)
        return Choice(None, tokens, tokens == END)


class Sampling(Search):
    """Sampling from the model's distribution with PyTorch's random numbers; reproducible with `torch.manual_seed`.

    Args:
        count: independent captions sampled per image; all are returned.
        temperature: divides the log-probabilities: above 1 the distribution is flatter, towards 0 sampling is greedy.
        top_k: sample from this many most probable tokens; 0 for all (Fan et al. 2018).
        top_p: sample from the fewest most probable tokens whose total probability reaches this share (nucleus sampling,
            Holtzman et al. 2020); 1 for all. Applied after temperature and `top_k`.

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
            needed = ordered.cumsum(dim=-1) - ordered < self.top_p  # the tokens before it have less than top_p
            probabilities = torch.zeros_like(ordered).scatter(-1, index, ordered * needed)
        # The first of exponential arrival times with rates pᵢ: a sample, without the checks of torch.multinomial.
        tokens = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1)
        return Choice(None, tokens, tokens == END)


class BeamSearch(Search):
    """Beam search: keeps the K most probable partial captions at every step.

    A caption that ends among the K most probable leaves the beam and is set aside, so that complete and partial
    captions do not compete for places in the beam. The search of an image continues until no partial caption can become
    better than the `best` complete ones, so it is exhaustive if K is the number of all partial captions. Captions
    truncated at the maximum length rank behind all complete ones.

    Args:
        size: K.
        length_penalty: captions are ranked by log p / n^penalty, n tokens with END: 0 compares probabilities, which
            favours short captions, 1 the mean of the log-probabilities; 0.7 was best on Flickr8k's validation split.
        best: captions returned per image, the best first.
        caution: complete captions are ranked by log p / n^penalty + caution · log q, where q is the probability of the
            least probable object named, or 1 if none is. An improbable object is often not in the image
            (docs/captions.md), and other words around it make up for it in p. Objects are single English words that may
            name one of COCO's categories (`visattn.data.coco_words`), whatever is around them. With 0 captions are
            ranked by p alone.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, size: int = 5, length_penalty: float = 0.7, best: int = 1, caution: float = 0.0) -> None:
        require_number("the beam's size", size, least=1, most=MOST)
        if not 1 <= best <= size:
            raise InputError(f"best is {best}; a beam of {size} can hand back from 1 to {size} captions of an image")
        require_number("length_penalty", length_penalty, least=0, most=MOST)
        require_number("caution", caution, least=0, most=MOST)
        self.width, self.best, self.length_penalty, self.caution = size, best, length_penalty, caution

    def start(self, images: int, device: torch.device) -> Tensor:
        # All captions begin alike, so one is enough.
        return torch.zeros(images, 1, dtype=torch.float32, device=device)

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        # At most K of the best 2K end, so at least K continue; all of them are among the best 2K of their captions.
        wanted = 2 * self.width
        likely, tokens = log_probs.topk(min(wanted, log_probs.shape[-1]), dim=-1)
        of_each = likely.shape[-1]
        candidates = F.pad((totals.unsqueeze(-1) + likely).flatten(1), (0, wanted), value=float("-inf"))
        scores, index = candidates.topk(wanted, dim=-1)
        real = index < of_each * totals.shape[1]  # if there are fewer, PAD after the first caption: improbable
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
    """The likeliest allowed tokens (B, T) given the true words."""
    first, later = (torch.tensor(Greedy().forbidden(t), device=logits.device) for t in (0, 1))
    allowed = logits.index_fill(2, later, float("-inf"))
    allowed[:, 0, first] = float("-inf")
    return allowed.argmax(dim=-1)
