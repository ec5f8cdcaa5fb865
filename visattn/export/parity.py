"""Differences between an export and the original model."""

from typing import NamedTuple

import torch
from torch import Tensor

from visattn.decoding import decode
from visattn.export.folder import ExportedCaptioner
from visattn.vocabulary import START


class Parity(NamedTuple):
    """Differences between two models on the same images.

    Attributes:
        images: number of images.
        equal: number of images with the same greedy caption or class.
        differences: the largest difference by kind of value, given the first model's words.
    """

    images: int
    equal: int
    differences: dict[str, float]

    def within(self, tolerance: float) -> bool:
        """Whether captions or classes are equal, and all differences are at most `tolerance`."""
        return self.equal == self.images and all(value <= tolerance for value in self.differences.values())

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.2g}" for name, value in self.differences.items())
        return f"{self.equal} of {self.images} the same; largest differences: {numbers}"


@torch.inference_mode()
def compare_captioners(ours: ExportedCaptioner, theirs: ExportedCaptioner, images: Tensor) -> Parity:
    """Compare captioners on images (B, 3, h, w) uint8: greedy captions, and values given the same words."""
    found = []
    for model in (ours, theirs):
        annotations = model.encoder(images)
        memory = model.decoder.prepare(*annotations)
        found.append((annotations.values, memory, decode(model.decoder, memory, max_length=ours.max_length).tokens))
    (values, memory, tokens), (their_values, their_memory, their_tokens) = found
    said = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], dim=1)
    logits, seen = ours.decoder(memory, said)
    their_logits, their_seen = theirs.decoder(their_memory, said)
    differences = {
        "annotation vectors": _distance(values, their_values),
        "logits": _distance(logits, their_logits),
        "alpha": _distance(seen.weights, their_seen.weights),
        "focus": _distance(seen.focus, their_seen.focus),
        "beta": _distance(seen.gate, their_seen.gate),
    }
    words = zip(tokens.tolist(), their_tokens.tolist(), strict=True)
    equal = sum(ours.vocabulary.decode(a) == ours.vocabulary.decode(b) for a, b in words)
    return Parity(len(images), equal, differences)


def compare_outputs(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Parity:
    """Compare outputs of classifiers for the same images: `logits` (B, classes), and others by name."""
    equal = int((ours["logits"].argmax(dim=1) == theirs["logits"].argmax(dim=1)).sum())
    differences = {name: _distance(ours[name], theirs[name]) for name in ours}
    return Parity(len(ours["logits"]), equal, differences)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
