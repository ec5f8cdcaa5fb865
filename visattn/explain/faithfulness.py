"""Deletion and insertion curves of a map (RISE: Petsiuk 2018, section 4.3), and maps to compare with.

Deletion removes an image, its most salient part first, and measures how fast the model's output falls: the smaller the
area under the curve, the better the map. Insertion restores it over a substrate in the same order: the larger the area,
the better. A map should be compared with random maps and the distance to the centre, on the same grid and interpolated
in the same way: a map of independent random *pixels* would destroy an image faster than any map of whole regions, and
look faithful.

Both depend only on the order of a map's values, not their size, and show the model images unlike its training data.

Maps are arrays and the model is any function; images are (3, h, w) floats in the function's units.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.errors import InputError, require_choice
from visattn.images import Geometry

Units = Literal["pixels", "cells"]
Score = Callable[[Tensor], Tensor]  # images (N, 3, h, w) to the log-probabilities (N, W) of W targets

BLUR_KERNEL, BLUR_SIGMA, BLUR_SIDE = 11, 5.0, 224  # the authors', in pixels of an image whose shorter side is the last


class Order(NamedTuple):
    """The order in which an image's pixels are removed or restored.

    Attributes:
        rank: (h, w) int64, 0 for the first; the pixels of a cell share a rank.
        units: number of ranks.
    """

    rank: np.ndarray
    units: int


def descending(weights: np.ndarray, geometry: Geometry, units: Units = "pixels") -> Order:
    """The order of a map, largest value first; equal values in reading order.

    Args:
        weights: (H, W) the map, a value for each cell.
        geometry: of the input; `Geometry.identity(size)`, with where the cells look (`Geometry.cell_shift`).
        units: "pixels" interpolates the map between the cells' centres, and takes pixel by pixel; "cells" takes all
            pixels of a cell at once.

    Raises:
        InputError: for other units.
        ValueError: if the map is not (H, W), or has a value that is not finite.
    """
    require_choice("units", units, get_args(Units))
    weights = np.asarray(weights)
    if weights.ndim != 2 or not np.isfinite(weights).all():
        raise ValueError(f"a map must be (H, W) finite numbers, not of the shape {weights.shape} or without a value")
    itself = geometry._replace(original=geometry.input, scale=(1.0, 1.0), offset=(0.0, 0.0))
    if units == "cells":
        ranks = itself.to_original_map(_ranks(weights).reshape(weights.shape), "nearest")
        # Pixels that reach no cell go with the last one: the model does not see them anyway.
        return Order(np.nan_to_num(ranks, nan=weights.size - 1).astype(np.int64), weights.size)
    return Order(_ranks(itself.to_original_map(weights)).reshape(geometry.input), math.prod(geometry.input))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, counted row by row: 0 is the largest; of equal ones the first."""
    order = np.argsort(-values.ravel(), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def random_map(grid: tuple[int, int], seed: int | tuple[int, ...]) -> np.ndarray:
    """A control: (H, W) independent numbers, so that every order of the cells is equally likely."""
    return np.random.default_rng(seed).random(grid)


def centre_map(grid: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """A control: (H, W) minus the distance, in pixels, of each cell's centre to the middle of the input."""
    y, x = (centres - size / 2 for centres, size in zip(geometry.centres(grid), geometry.input, strict=True))
    return -np.hypot(y[:, None], x[None, :])


def inserted_over(image: Tensor, blank: Tensor, substrate: str) -> Tensor:
    """What insertion begins with: `blurred`, or where the substrate is "grey" the blank (3, 1, 1) everywhere."""
    return blurred(image, blank) if substrate == "blur" else blank.expand_as(image)


def blurred(image: Tensor, blank: Tensor) -> Tensor:
    """The substrate of insertion as the authors make it: an image (3, h, w) through a Gaussian, σ = 5 on 11×11 pixels.

    That is for a shorter side of 224 pixels and grows with it; the least kernel is 3×3. The kernel is what their code
    makes, a Gaussian filter of a single bright pixel that is thrown back at the kernel's edges, so it is flatter than
    the Gaussian. Beyond the image lies `blank` (3, 1, 1), their zeros in normalised space.
    """
    size, sigma = blur_of(image.shape[-2:])
    kernel = torch.from_numpy(_reflected_gaussian(size, sigma)).to(image)
    rows = F.conv2d((image - blank).unsqueeze(1), kernel.view(1, 1, -1, 1), padding=(size // 2, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, size // 2)).squeeze(1) + blank


def blur_of(size: Sequence[int]) -> tuple[int, float]:
    """Kernel and σ of the blur, in pixels, for an input of (h, w)."""
    scale = min(size) / BLUR_SIDE
    return max(3, 2 * int(BLUR_KERNEL * scale / 2) + 1), BLUR_SIGMA * scale


def _reflected_gaussian(size: int, sigma: float) -> np.ndarray:
    """(size,) what a Gaussian filter makes of a one in the middle, its ends reflected; sums to 1."""
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    gaussian = np.exp(-(offsets**2) / (2 * sigma**2))
    place = (size // 2 + offsets) % (2 * size)
    return np.bincount(np.minimum(place, 2 * size - 1 - place), gaussian / gaussian.sum(), size)


def taken(units: int, steps: int) -> np.ndarray:
    """(K + 1,) int64: how many of the units are taken after each of K steps; 0 first, all last, equal up to one.

    Raises:
        InputError: if there are fewer units than steps, or no step.
    """
    if not 1 <= steps <= units:
        raise InputError(f"steps is {steps}; it must be from 1 to {units}, the number of units")
    return np.arange(steps + 1) * units // steps


@torch.inference_mode()
def transition(score: Score, start: Tensor, end: Tensor, order: Order, steps: int, batch_size: int = 64) -> Tensor:
    """Log-probabilities (K + 1, W) on the way from one image (3, h, w) to another, pixels replaced in this order.

    Args:
        score: the model.
        start: the first image.
        end: the last; both on the model's device.
        order: of the pixels.
        steps: K; see `taken`.
        batch_size: images that the model sees at once; it changes nothing else.

    Raises:
        InputError: if there are fewer units than steps, or no step.
        ValueError: if the order is of another size.
    """
    if order.rank.shape != tuple(start.shape[-2:]):
        raise ValueError(f"an order of {order.rank.shape} pixels cannot take an image of {tuple(start.shape[-2:])}")
    rank = torch.from_numpy(order.rank).to(start.device)
    counts = torch.from_numpy(taken(order.units, steps)).to(start.device)
    scores = [score(torch.where(rank < part.view(-1, 1, 1, 1), end, start)) for part in counts.split(batch_size)]
    return torch.cat(scores).float()


class Walk(NamedTuple):
    """How images are taken away and brought in.

    Attributes:
        geometry: of the model's input, for `descending`.
        units: for `descending`.
        steps: K; see `taken`.
        batch_size: images that the model sees at once.
    """

    geometry: Geometry
    units: Units = "pixels"
    steps: int = 32
    batch_size: int = 64

    def share(self, grid: tuple[int, int]) -> np.ndarray:
        """(K + 1,) which share of the image is taken after each step, for maps of (H, W) cells."""
        units = math.prod(grid if self.units == "cells" else self.geometry.input)
        return taken(units, self.steps) / units

    def curves(self, score: Score, image: Tensor, blank: Tensor, substrate: Tensor, maps: np.ndarray) -> np.ndarray:
        """Deletion and insertion by one map for all of W targets, or by a map for each.

        Args:
            score: the model.
            image: (3, h, w).
            blank: (3, 1, 1) what deletion leaves; the authors' is 0 in normalised space, the mean of a data set.
            substrate: (3, h, w) what insertion begins with, such as `blurred(image, blank)`.
            maps: (1, H, W) or (W, H, W).

        Returns:
            (2, W, K + 1) log-probabilities: deletion, from the image to nothing; insertion, from substrate to image.
        """
        found = []
        for number, weights in enumerate(maps):
            order = descending(weights, self.geometry, self.units)
            ways = ((image, blank.expand_as(image)), (substrate, image))
            both = torch.stack([transition(score, *way, order, self.steps, self.batch_size) for way in ways])
            found.append(both if len(maps) == 1 else both[:, :, number : number + 1])
        return torch.cat(found, dim=2).transpose(1, 2).cpu().numpy()


class Groups(NamedTuple):
    """Pixels of about equal number, the most salient first (SaCo; see `visattn.metrics.saliency`).

    Attributes:
        number: (h, w) int64, the group of each pixel, from 0.
        salience: (K,) the mean of the map over each group's pixels; its minimum in a group that the model does not see.
    """

    number: np.ndarray
    salience: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, geometry: Geometry, count: int, units: Units = "pixels") -> "Groups":
        """A map's groups; arguments as for `descending`.

        Raises:
            InputError: for other units, or more groups than there is to divide.
        """
        order = descending(weights, geometry, units)
        number = np.searchsorted(taken(order.units, count), order.rank, side="right") - 1
        itself = geometry._replace(original=geometry.input, scale=(1.0, 1.0), offset=(0.0, 0.0))
        spread = itself.to_original_map(weights, "bilinear" if units == "pixels" else "nearest")
        seen = ~np.isnan(spread)  # the model does not see the rest
        pixels, sums = np.bincount(number[seen], minlength=count), np.bincount(number[seen], spread[seen], count)
        return cls(number, np.where(pixels > 0, sums / np.maximum(pixels, 1), np.nanmin(spread)))

    @torch.inference_mode()
    def without(self, score: Score, image: Tensor, batch_size: int = 64) -> Tensor:
        """Log-probabilities (K, W) of the image with each group replaced by its mean colour, one group at a time."""
        number = torch.from_numpy(self.number).to(image.device)
        mean = image.mean(dim=(1, 2), keepdim=True)
        groups = torch.arange(len(self.salience), device=image.device).view(-1, 1, 1, 1)
        scores = [score(torch.where(number == part, mean, image)) for part in groups.split(batch_size)]
        return torch.cat(scores).float()


def area(curve: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The area under curves (..., K + 1) over the share of the image that is taken (K + 1,): trapezoids.

    For equal steps this is the authors' sum; it is in the units of the curve, the mean height over the way.
    """
    return np.trapezoid(curve, share, axis=-1)


class Difference(NamedTuple):
    """How much larger one map's areas are than another's, on the same images.

    Attributes:
        mean: of the images' differences; an image's is the mean over its targets.
        error: standard error of that mean, over the images; NaN for a single image.
        larger: share of the images in which it is larger, equal ones by half.
        images: how many.
    """

    mean: float
    error: float
    larger: float
    images: int


def difference(areas: np.ndarray, others: np.ndarray, image: np.ndarray) -> Difference:
    """Compare areas (M,) of M targets with others (M,); `image` (M,) says whose targets they are."""
    _, number, counts = np.unique(image, return_inverse=True, return_counts=True)
    gaps = np.bincount(number, np.asarray(areas, float) - np.asarray(others, float)) / counts
    error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
    return Difference(float(gaps.mean()), float(error), float(((np.sign(gaps) + 1) / 2).mean()), len(gaps))
