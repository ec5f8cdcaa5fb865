"""The interface of relaxations: a derivative for sampled places."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Relaxed(NamedTuple):
    """Result of a relaxation.

    Attributes:
        focus: (N, L) the weights that multiply the values, with a gradient to the scores.
        place: (N,) the sampled place, which is that of the largest weight.
    """

    focus: Tensor
    place: Tensor


class Relaxation:
    """An estimator of the gradient of the scores that needs no REINFORCE: back-propagation through the sampled place.

    All are biased, and none needs a second pass of the decoder. They differ in what replaces the missing derivative of
    the sample. None is used outside training.

    Attributes:
        discrete: whether the forward pass uses the single sampled place; otherwise it mixes places.
    """

    discrete = True

    def __call__(self, scores: Tensor) -> Relaxed:
        """Sample from softmax(scores), scores (N, L) float32 or more, −∞ where masked."""
        raise NotImplementedError


def one_hot(place: Tensor, like: Tensor) -> Tensor:
    """Places (N,) as weights (N, L)."""
    return F.one_hot(place, like.shape[-1]).to(like.dtype)


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise, −log E with E exponential."""
    return -torch.empty_like(like).exponential_().log()


def passing(value: Tensor, gradient: Tensor) -> Tensor:
    """`value`, bit for bit, with the gradient of `gradient`."""
    return value.detach() + (gradient - gradient.detach())
