"""Pointing game and attention correctness: whether attention is on the named object, compared with chance.

Objects tend to be large and central, so a score means little by itself. Each is reported together with the scores of
two maps that do not depend on the image: a uniform map and a centred Gaussian.

Coordinates are those of `visattn.images.geometry`: continuous, in input pixels, (y, x), from the top-left corner.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from visattn.errors import InputError
from visattn.images.geometry import CellShift, Geometry, Pair

POINTING_TOLERANCE = 15 / 224  # of the input's shorter side: 15 pixels at 224 in Zhang 2016
CENTRE_SIGMA = 0.25  # standard deviation of the centred map, relative to the height and to the width
_TIE = 1e-6  # relative tolerance for ties with the largest cell; float32 sums differ by less


class Grounding(NamedTuple):
    """Means over the scored words, each in [0, 1]; all NaN where no word was scored.

    Attributes:
        words: number of scored words.
        pointing: share of words whose largest cell hits the region.
        pointing_uniform: expected score of a point drawn uniformly.
        pointing_centre: score of the centre of the image.
        mass: share of the attention inside the region.
        mass_uniform: score of a uniform map: the region's share of the image.
        mass_centre: score of a centred Gaussian map on the same grid (`CENTRE_SIGMA`).
    """

    words: int
    pointing: float
    pointing_uniform: float
    pointing_centre: float
    mass: float
    mass_uniform: float
    mass_centre: float

    @classmethod
    def together(cls, parts: "Iterable[Grounding]") -> "Grounding":
        """The means over the words of several sets."""
        scored = np.array([part for part in parts if part.words]).reshape(-1, len(cls._fields))
        words = scored[:, 0]
        means = np.average(scored[:, 1:], axis=0, weights=words) if len(words) else np.full(6, np.nan)
        return cls(int(words.sum()), *(float(mean) for mean in means))


def grounding(
    maps: Iterable[np.ndarray],
    masks: Iterable[np.ndarray | None],
    tolerance: float,
    cell_shift: CellShift | Pair = (0.0, 0.0),
) -> Grounding:
    """Score the attention of words against the regions they name.

    Pointing (Zhang et al. 2016): the centre of the largest cell is a hit if it is within `tolerance` of the region. The
    region is the area of its pixels, edges included, so with a tolerance of 0 the point must lie inside. If several
    cells tie for the largest (within a millionth), their hits are averaged, so a flat map gets `pointing_uniform` and
    not the score of its first corner.

    Mass (attention correctness; Liu et al. 2017): the map is normalised to sum 1, and each cell's weight is spread
    evenly over its area; the score is the weight inside the region. Cells may cover pixels partly.

    Every word counts once here; the published pointing game averages over classes.

    Args:
        maps: for each word (h, w) weights, non-negative; grids may differ where cells divide the input evenly.
        masks: for each word a boolean (H, W) mask at the input's resolution, or None for a word that names nothing in
            the image, or nothing inside the crop; such words are not scored.
        tolerance: in input pixels; published results use 15 with a shorter side of 224.
        cell_shift: position of the cells (`visattn.images.Geometry.cell_shift`); the scores of the uniform and the
            centred map do not depend on it.

    Returns:
        The means. Both iterables are read once, in step, and may be generators.

    Raises:
        InputError: if a mask is not boolean, not (H, W), or is empty.
        ValueError: if a map is not (h, w), or is negative, not finite or 0 everywhere; if maps and masks differ
            in number; if the tolerance is negative.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more input pixels, not {tolerance}")
    scores = []
    for word, (weights, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask is None:
            continue
        weights, mask = _checked_map(weights, word), _checked_mask(mask, word)
        geometry = Geometry.identity(mask.shape)._replace(cell_shift=cell_shift)
        cells, even = geometry.cells(weights.shape), Geometry.identity(mask.shape).cells(weights.shape)
        hits, centre_hit = _Discs.around_cells(weights.shape, mask.shape, float(tolerance), cells).meet(mask)
        largest = weights >= weights.max() * (1 - _TIE)
        covered = coverage(mask, weights.shape, cells)
        scores.append(
            (
                hits[largest].mean(),
                hits.mean(),
                centre_hit,
                (weights * covered).sum() / weights.sum(),
                mask.mean(),
                (_centred(weights.shape) * coverage(mask, weights.shape, even)).sum(),
            )
        )
    means = np.mean(scores, axis=0) if scores else np.full(6, np.nan)
    return Grounding(len(scores), *(float(mean) for mean in means))


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy, in nats, of weights (..., L) over their last axis, after normalising them to sum 1.

    It ranges from 0 (one place) to log L (uniform). Flatten a map (h, w) first.

    Raises:
        ValueError: if weights are negative, not finite, or 0 in all L places.
    """
    weights = np.asarray(weights, dtype=float)
    total = weights.sum(axis=-1, keepdims=True)
    if not ((weights >= 0).all() and (total > 0).all() and np.isfinite(total).all()):
        raise ValueError("weights must be finite and non-negative, and not all 0")
    share = weights / total
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1)  # 0 log 0 = 0


def _checked_map(weights: np.ndarray, word: int) -> np.ndarray:
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"the map of word {word} has shape {weights.shape}, not (h, w)")
    if not (weights.min() >= 0 and 0 < weights.sum() < np.inf):  # NaN fails every comparison
        raise ValueError(f"the map of word {word} must be finite and non-negative, and not all 0")
    return weights


def _checked_mask(mask: np.ndarray, word: int) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:
        raise InputError(
            f"the mask of word {word} is {mask.dtype} of shape {mask.shape}; it must be boolean and (H, W)"
        )
    if not mask.any():
        raise InputError(f"the mask of word {word} is empty; give None for a word that names nothing in the image")
    return mask


@functools.lru_cache(maxsize=16)
def _shares(grid: tuple[int, int], size: tuple[int, int], cells: CellShift) -> list[np.ndarray]:
    """For each axis, (cells, pixels): the share of each cell's length inside each pixel."""
    found = []
    for edges, pixels in zip(Geometry.identity(size)._replace(cell_shift=cells).edges(grid), size, strict=True):
        pixel, low, high = np.arange(pixels), edges[:-1, None], edges[1:, None]
        shared = np.maximum(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0)
        found.append(shared / np.maximum(high - low, np.finfo(float).tiny))  # 0 for a cell outside the image
    return found


def coverage(mask: np.ndarray, grid: tuple[int, int], cells: CellShift) -> np.ndarray:
    """(h, w) share of each cell's area that a region covers.

    Args:
        mask: (H, W) boolean, True in the region.
        grid: (h, w) of the cells.
        cells: shift of their centres in an input of H×W pixels; see `Geometry.cells`.
    """
    rows, columns = _shares(grid, mask.shape, cells)
    return rows @ mask.astype(float) @ columns.T


@functools.lru_cache(maxsize=16)
def _centred(grid: tuple[int, int]) -> np.ndarray:
    """(h, w) Gaussian around the centre of the image, at the centres of evenly spaced cells; sums to 1."""
    y, x = (np.exp(-(((np.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * CENTRE_SIGMA**2)) for n in grid)
    return np.outer(y / y.sum(), x / x.sum())


class _Discs(NamedTuple):
    """Discs around the centres of the cells and, last, around the centre of the image, as runs of pixels in rows.

    A disc meets the region if any of its runs does. A run does if the cumulative count of region pixels differs between
    its start and its end, so each run takes two look-ups, whatever its length.

    Attributes:
        grid: (h, w) of the cells.
        start: index of each run's start in the flattened (H, W + 1) cumulative count of region pixels.
        stop: the same for its end.
        first: index of each disc's first run. Every disc has a run, since its centre is inside the image, or on its
            edge if the cell lies outside.
    """

    grid: tuple[int, int]
    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray

    @classmethod
    @functools.lru_cache(maxsize=16)
    def around_cells(cls, grid: tuple[int, int], size: tuple[int, int], radius: float, cells: CellShift) -> "_Discs":
        (h, w), (height, width) = grid, size
        centres = Geometry.identity(size)._replace(cell_shift=cells).centres(grid)
        rows, columns = (np.clip(c, 0, n) for c, n in zip(centres, size, strict=True))
        y = np.append(np.repeat(rows, w), height / 2)[:, None]  # (h * w + 1, 1)
        x = np.append(np.tile(columns, h), width / 2)[:, None]
        row = np.arange(height)
        away = np.maximum(np.maximum(row - y, y - row - 1), 0)  # (h * w + 1, H) distance from a point to a row
        reach = np.sqrt(np.maximum(radius**2 - away**2, 0))
        left = np.clip(np.ceil(x - reach) - 1, 0, width).astype(int)  # a pixel touched at its edge belongs to the disc
        right = np.clip(np.floor(x + reach) + 1, 0, width).astype(int)
        disc, row = np.nonzero(away <= radius)
        start, stop = (row * (width + 1) + column[disc, row] for column in (left, right))
        return cls(grid, start, stop, np.flatnonzero(np.diff(disc, prepend=-1)))

    def meet(self, mask: np.ndarray) -> tuple[np.ndarray, float]:
        """(h, w) True if a cell's disc meets the region, and 1.0 or 0.0 for the disc around the image's centre."""
        count = np.zeros((mask.shape[0], mask.shape[1] + 1), dtype=np.int32)
        np.cumsum(mask, axis=1, out=count[:, 1:])
        count = count.ravel()
        hits = np.logical_or.reduceat(count[self.stop] > count[self.start], self.first)
        return hits[:-1].reshape(self.grid), float(hits[-1])
