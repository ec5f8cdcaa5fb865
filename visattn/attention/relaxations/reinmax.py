"""ReinMax (Liu et al. 2023, "Bridging discrete and backpropagation: straight-through and beyond")."""

from torch import Tensor

from visattn.attention.relaxations.contract import Relaxation, Relaxed, gumbel, one_hot, passing
from visattn.errors import InputError


class ReinMax(Relaxation):
    """One-hot sample s forward; backward 2 π₁ − ½ π₀ (Liu 2023, algorithm 2).

    π₀ = α, and π₁ = (s + softmax(e / τ)) / 2, differentiated as a softmax of e. By Heun's method this is a second-order
    approximation of the gradient: with τ = 1 exact in expectation if the cost is quadratic in the sample, where
    straight-through is exact only if it is linear.

    Args:
        temperature: τ, at least 1; more trades bias for variance.

    Raises:
        InputError: if the temperature is below 1.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature >= 1:
            raise InputError(f"temperature is {temperature}; of ReinMax it must be at least 1")
        self.temperature = temperature

    def __call__(self, scores: Tensor) -> Relaxed:
        place = (scores + gumbel(scores)).argmax(dim=-1)
        sample, first = one_hot(place, scores), scores.softmax(dim=-1)
        # The derivative of a softmax at π₁ is diag(π₁) − π₁ π₁ᵀ, and it is written with α as the differentiable part:
        # scores that are −∞ have no finite logarithm to start from.
        second = ((sample + (scores / self.temperature).softmax(dim=-1)) / 2).detach()
        shifted = scores.masked_fill(second == 0, 0.0)
        tangent = second * (shifted - (second * shifted).sum(dim=-1, keepdim=True))
        return Relaxed(passing(sample, 2 * tangent - first / 2), place)
