"""A captioner's own captions, and the log-probabilities of tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visattn.attention import Memory
from visattn.decoding import Decoded
from visattn.explain import word_relevance
from visattn.training.captioner import Captioner
from visattn.vocabulary import END, PAD, START

WORD_METHODS = {
    "attention": lambda decoder, memory, heard, decoded: decoded.weights,
    "relevance": lambda decoder, memory, heard, decoded: word_relevance(decoder, memory, heard[:, :-1], decoded.tokens),
}


class OwnCaption(NamedTuple):
    """A captioner's own caption of an image; T words.

    Attributes:
        tokens: START, the words, and END if the caption ended.
        maps: (T, H, W) maps of the words, by method.
    """

    tokens: Tensor
    maps: dict[str, np.ndarray]


def own_captions(model: Captioner, memory: Memory, decoded: Decoded, methods: Sequence[str]) -> list[OwnCaption]:
    """The generated captions, one per image of the memory, with the maps of their words."""
    heard = torch.cat([torch.full_like(decoded.tokens[:, :1], START), decoded.tokens], dim=1)
    maps = {name: WORD_METHODS[name](model.decoder, memory, heard, decoded) for name in methods}
    maps = {name: part.float().unflatten(2, memory.grid).cpu().numpy() for name, part in maps.items()}
    return [
        OwnCaption(tokens[tokens != PAD], {name: part[n, : int((tokens > END).sum())] for name, part in maps.items()})
        for n, tokens in enumerate(heard)
    ]


def of_tokens(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities (N, T) of tokens (N, T) from logits (N, T, V)."""
    return logits.float().log_softmax(dim=-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
