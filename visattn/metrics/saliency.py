"""Scores of saliency maps beyond deletion and insertion, from arrays alone."""

import numpy as np


def saco(salience: np.ndarray, drops: np.ndarray) -> float:
    """Salience-guided Faithfulness Coefficient (Wu et al., CVPR 2024, algorithm 1), from −1 to 1.

    Over all pairs of groups of pixels, the difference in salience counts for the map where the more salient group's
    removal costs more confidence, and against it where it costs less, as a share of all differences. Unlike deletion
    it judges each group by itself and uses the map's values, not their order alone. Random maps get 0 on average.

    Two deviations that matter only in the limit: salience is the mean over a group, so groups need not be exactly equal
    in size, and equal drops count neither way, so a model that does not react gives 0, not 1.

    Args:
        salience: (K,) of the groups.
        drops: (K,) confidence lost without each.

    Returns:
        The coefficient; 0 for a flat map.

    Raises:
        ValueError: if there are not as many drops as groups, or a number is not finite.
    """
    salience, drops = np.asarray(salience, dtype=float), np.asarray(drops, dtype=float)
    if salience.shape != drops.shape or salience.ndim != 1 or not np.isfinite([salience, drops]).all():
        raise ValueError(f"SaCo needs as many finite drops as groups, not {drops.shape} for {salience.shape}")
    first, second = np.triu_indices(len(salience), k=1)
    difference = salience[first] - salience[second]
    total = np.abs(difference).sum()
    return float((difference * np.sign(drops[first] - drops[second])).sum() / total) if total > 0 else 0.0


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two maps' values; equal values share their mean rank; 0 if a map is flat."""
    ranks = [_mean_ranks(np.ravel(values)) for values in (one, other)]
    deviations = [rank - rank.mean() for rank in ranks]
    scale = np.sqrt(np.prod([(d**2).sum() for d in deviations]))
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 0 else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[number]


def bootstrap_interval(
    values: np.ndarray, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of values (M,), and the ends of its percentile bootstrap interval; NaN are left out.

    Returns:
        Mean, low and high; all NaN where there is no value.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return (np.nan,) * 3
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    low, high = np.quantile(counts @ values / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
