"""Gumbel-softmax, relaxed or straight-through (Jang et al. 2017; Maddison et al. 2017, the "concrete" distribution)."""

from torch import Tensor

from visattn.attention.relaxations.contract import Relaxation, Relaxed, gumbel, one_hot, passing
from visattn.errors import InputError


class GumbelSoftmax(Relaxation):
    """focus = softmax((log α + g) / τ) with Gumbel noise g (Jang 2017, eq. 2; Maddison 2017, eq. 10).

    The largest entry is distributed as a sample of α. The forward pass mixes several places, so it is another model
    than the one that samples: its gradient is exact for the relaxed objective, and for the discrete one in the limit
    τ → 0, where its variance has no bound.

    Args:
        temperature: τ.

    Raises:
        InputError: if the temperature is not positive.
    """

    discrete = False

    def __init__(self, temperature: float = 0.5) -> None:
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; of Gumbel-softmax it must be more than 0")
        self.temperature = temperature

    def __call__(self, scores: Tensor) -> Relaxed:
        noisy = scores + gumbel(scores)
        return Relaxed((noisy / self.temperature).softmax(dim=-1), noisy.argmax(dim=-1))


class StraightThroughGumbel(GumbelSoftmax):
    """One-hot argmax(log α + g) forward, the derivative of Gumbel-softmax backward (Jang 2017, section 2.2).

    The forward pass is that of plain sampling. The gradient is biased at every temperature.

    Args:
        temperature: τ of the derivative.

    Raises:
        InputError: if the temperature is not positive.
    """

    discrete = True

    def __call__(self, scores: Tensor) -> Relaxed:
        soft, place = super().__call__(scores)
        return Relaxed(passing(one_hot(place, soft), soft), place)
