"""Words out of a decoder: one loop over `step`, whatever the decoder and the way to choose."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visattn.attention import Memory
from visattn.models.decoder import Decoder
from visattn.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

Chooser = Callable[[Tensor], Tensor]  # (B, V) log-probabilities to (B,) tokens


class Decoded(NamedTuple):
    """Generated captions.

    Attributes:
        tokens: (B, T) the words and END, then PAD; START is left out.
        log_probs: (B, T) of each token under the model, 0 where PAD.
        weights: (B, T, L) what was attended to for each token, α.
        focus: (B, T, L) what really multiplied the annotation vectors.
    """

    tokens: Tensor
    log_probs: Tensor
    weights: Tensor
    focus: Tensor


def greedy(log_probs: Tensor) -> Tensor:
    """The most probable token of each row."""
    return log_probs.argmax(dim=-1)


@torch.inference_mode()
def decode(decoder: Decoder, memory: Memory, choose: Chooser = greedy, max_length: int = 20) -> Decoded:
    """Generate a caption for each row of a memory.

    A caption has at least one word: END is not allowed before it. UNKNOWN is never chosen, nor are PAD and START. A
    caption that has not ended after `max_length` words is cut there.

    Args:
        decoder: in evaluation mode.
        memory: as `decoder.prepare` made it, B rows.
        choose: how to pick a token from the log-probabilities.
        max_length: number of words, END not counted.
    """
    device = memory.values.device
    state = decoder.init(memory)
    token = torch.full((len(memory.values),), START, device=device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    steps = []
    for t in range(max_length + 1):
        logits, glimpse, state = decoder.step(state, token)
        log_probs = logits.float().log_softmax(dim=-1)
        allowed = log_probs.clone()
        allowed[:, [PAD, START, UNKNOWN, END] if t == 0 else [PAD, START, UNKNOWN]] = float("-inf")
        token = choose(allowed).masked_fill(ended, PAD)
        log_prob = log_probs.gather(1, token.unsqueeze(1)).squeeze(1).masked_fill(ended, 0)
        steps.append((token, log_prob, glimpse.weights, glimpse.focus))
        ended = ended | (token == END)
        if ended.all():
            break
    decoded = Decoded(*(torch.stack(part, dim=1) for part in zip(*steps, strict=True)))
    cut = decoded.tokens[:, max_length:]  # the last step may only end a caption, not add a word to it
    cut.masked_fill_(cut != END, PAD)
    decoded.log_probs[:, max_length:].masked_fill_(cut == PAD, 0)
    return decoded


class Caption(NamedTuple):
    """One generated caption; T words, without END.

    Attributes:
        words: the T words.
        log_probs: (T,) of each word, under the model.
        log_prob: of the whole caption, END included.
        weights: (T, H, W) α of each word.
        focus: (T, H, W) what really multiplied the annotation vectors.
    """

    words: list[str]
    log_probs: np.ndarray
    log_prob: float
    weights: np.ndarray
    focus: np.ndarray

    @property
    def places(self) -> list[int | None]:
        """The cell that each word was made from, counted row by row; None where it was more than one."""
        cells = self.focus.reshape(len(self.words), math.prod(self.focus.shape[1:]))
        return [int(row.argmax()) if row.max() == row.sum() else None for row in cells]


def captions(decoded: Decoded, vocabulary: Vocabulary, grid: tuple[int, int]) -> list[Caption]:
    """Generated tokens as words with their maps, a caption for each row."""
    tokens, log_probs, weights, focus = (part.float().cpu().numpy() for part in decoded)
    out = []
    for b, row in enumerate(tokens.astype(int).tolist()):
        words = vocabulary.decode(row)
        maps = (part[b, : len(words)].reshape(-1, *grid) for part in (weights, focus))
        out.append(Caption(words, log_probs[b, : len(words)], float(log_probs[b].sum()), *maps))
    return out
