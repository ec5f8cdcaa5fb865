"""The straight-through estimator (Bengio et al. 2013, section 4)."""

from torch import Tensor

from visattn.attention.relaxations.contract import Relaxation, Relaxed, gumbel, one_hot, passing


class StraightThrough(Relaxation):
    """One-hot sample forward, the derivative of α backward: ∂s/∂e is taken to be ∂α/∂e.

    Exact in expectation if the cost is linear in the sample; in general a first-order approximation of the gradient
    (Liu et al. 2023, section 3).
    """

    def __call__(self, scores: Tensor) -> Relaxed:
        place = (scores + gumbel(scores)).argmax(dim=-1)
        return Relaxed(passing(one_hot(place, scores), scores.softmax(dim=-1)), place)
