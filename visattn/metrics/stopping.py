"""How many glimpses are taken, and how often the answer is right, by where a model stops."""

from typing import NamedTuple

import numpy as np


class StoppingCurve(NamedTuple):
    """Accuracy against mean number of glimpses, ascending; M points.

    Attributes:
        glimpses: (M,) mean number of glimpses.
        accuracy: (M,) share of images whose answer is right.
    """

    glimpses: np.ndarray
    accuracy: np.ndarray


def stopping_curve(sure: np.ndarray, right: np.ndarray, points: int = 25) -> StoppingCurve:
    """Stop each image after the first glimpse whose sureness reaches a threshold, for thresholds from all to none.

    Args:
        sure: (N, T) a number for each image and glimpse; that of the last glimpse does not matter.
        right: (N, T) whether the answer after that glimpse is right.
        points: number of thresholds: quantiles of `sure`, so that the points are spread over the curve.

    Raises:
        ValueError: if the arrays do not fit, or there is no image.
    """
    if sure.shape != right.shape or sure.ndim != 2 or not sure.size:
        raise ValueError(f"sureness {sure.shape} and answers {right.shape} must be (images, glimpses), at least one")
    before = np.maximum.accumulate(sure[:, :-1], axis=1)  # what has been reached by then
    thresholds = np.unique(np.quantile(before, np.linspace(0, 1, points))) if before.size else np.empty(0)
    counts, shares = [], []
    for threshold in [*thresholds, np.inf]:
        taken = 1 + (before < threshold).sum(axis=1)
        counts.append(taken.mean())
        shares.append(right[np.arange(len(right)), taken - 1].mean())
    return StoppingCurve(np.array(counts), np.array(shares, dtype=float))
