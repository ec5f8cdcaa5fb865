"""Texts as the classes of a model that compares images with texts, such as CLIP and SigLIP.

The logit of an image and a text is scale · cos(image features, text features) + bias (Radford et al. 2021, "Learning
Transferable Visual Models From Natural Language Supervision"; the bias is that of Zhai et al. 2023, "Sigmoid Loss for
Language Image Pre-Training"). Texts are encoded once; then the image part alone is a classifier whose classes they are,
and every method that explains a class explains a text.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visattn.errors import InputError
from visattn.explain.vit import ViT


class Texts(NamedTuple):
    """Encoded texts, and how images are compared with them.

    Attributes:
        texts: as given.
        embeddings: (T, D) float32, of length 1.
        scale: of the cosine in the logit.
        bias: of the logit.
        project: the features of the image part (B, C) to the space of the embeddings (B, D).
    """

    texts: list[str]
    embeddings: Tensor
    scale: float
    bias: float
    project: Callable[[Tensor], Tensor]

    def logits(self, features: Tensor) -> Tensor:
        """Features of the image part (B, C) to the model's logits of images and texts (B, T), float32."""
        with torch.autocast(features.device.type, enabled=False):
            projected = self.project(features.float())
            # The length on its own, since relevance propagation holds it constant.
            cosines = (projected / projected.norm(dim=-1, keepdim=True)) @ self.embeddings.to(projected.device).T
            return self.scale * cosines + self.bias

    def cosines(self, logits: Tensor) -> Tensor:
        """Logits (B, T) to the cosines of images and texts."""
        return (logits - self.bias) / self.scale


def compared(vit: ViT, texts: Texts) -> ViT:
    """The image part of a model, as a classifier of these texts; it shares the network of `vit`."""
    network, other = vit._interface, copy.copy(vit)

    def run(model: Callable, images: Tensor) -> Tensor:
        return texts.logits(network.run(model, images))

    other._interface = network._replace(run=run, classes=len(texts.texts))
    other._logits = functools.partial(run, *vit._logits.args)
    other.classes = len(texts.texts)
    head = vit.token_head
    other.token_head = None if head is None else lambda tokens: texts.logits(head(tokens))
    return other


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts, each once.

    Raises:
        InputError: if there are none, or one is empty.
    """
    found = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    if not found or "" in found:
        raise InputError("a text to compare images with is empty; give words, such as 'a photo of a cat'")
    return found


def texts_of(model: Any, texts: list[str], features: Tensor, project: Callable[[Tensor], Tensor]) -> Texts:
    """Texts as a model encodes them.

    Args:
        model: has a `logit_scale`, the logarithm of the scale, and perhaps a `logit_bias`.
        texts: T of them.
        features: (T, D) of the texts, in the space that they share with images.
        project: as in `Texts`.
    """
    with torch.no_grad():
        bias = getattr(model, "logit_bias", None)
        scale, embeddings = model.logit_scale.exp().item(), features.detach().float()
        unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
        return Texts(texts, unit, scale, 0.0 if bias is None else bias.item(), project)
