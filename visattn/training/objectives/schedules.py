"""Schedules of ε, the probability of the true previous word in scheduled sampling (Bengio 2015, section 2.4).

ε falls with the number i of training steps; a decoder is shown its own word with probability 1 − ε.
"""

import math

from visattn.errors import InputError


class Schedule:
    """The interface: `truth` at every step."""

    def truth(self, step: int) -> float:
        """ε, in [0, 1], at a step."""
        raise NotImplementedError


class LinearDecay(Schedule):
    """ε = max(least, start − slope · i).

    Args:
        slope: decrease of ε per step.
        start: ε at the first step, k.
        least: minimum of ε.
    """

    def __init__(self, slope: float, start: float = 1.0, least: float = 0.0) -> None:
        _check(slope >= 0 and 0 <= least <= start <= 1, "slope at least 0 and 0 ≤ least ≤ start ≤ 1")
        self.slope, self.start, self.least = slope, start, least

    def truth(self, step: int) -> float:
        return max(self.least, self.start - self.slope * step)


class ExponentialDecay(Schedule):
    """ε = k^i.

    Args:
        k: below 1, such as 0.9997, which is ½ after 2,310 steps.
    """

    def __init__(self, k: float) -> None:
        _check(0 < k < 1, "a k between 0 and 1")
        self.k = k

    def truth(self, step: int) -> float:
        return self.k**step


class InverseSigmoidDecay(Schedule):
    """ε = k / (k + exp(i / k)): stays near 1, then falls.

    Args:
        k: at least 1; ε is ½ after k ln k steps, so 500 gives 3,107.
    """

    def __init__(self, k: float) -> None:
        _check(k >= 1, "a k of at least 1")
        self.k = k

    def truth(self, step: int) -> float:
        exponent = step / self.k
        return self.k / (self.k + math.exp(exponent)) if exponent < 700 else 0.0  # avoids overflow


def _check(right: bool, rule: str) -> None:
    if not right:
        raise InputError(f"a schedule of scheduled sampling needs {rule}")
