"""Local attention: attend only to the places within a window (Luong 2015, section 3.2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visattn.attention.contract import Glimpse, Memory, SpatialAttention, check_soft_start
from visattn.attention.scores import GeneralScore, Score
from visattn.errors import InputError
from visattn.fast.linear import Linear


@dataclass(frozen=True, eq=False, kw_only=True)
class LocalMemory(Memory):
    """A memory with the extent of each image.

    Attributes:
        extent: (B, 2) rows and columns up to the last unmasked place.
    """

    extent: Tensor


class LocalAttention(SpatialAttention):
    """Base of local-m and local-p: the window [p − D, p + D] around an aligned position p, and the scores within it.

    On a sequence, a grid of (1, S), exactly as published. On a grid p is (row, column) and the window is square. Places
    are numbered from 0. Places of the window outside the grid, or masked, are ignored: the softmax is over the rest;
    if none is left, the weights are 0. Keys and values are gathered from the window, so a step costs as much as
    (2D + 1)² places, or 2D + 1 on a sequence, regardless of the size of the grid.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D); must depend on the content of places.
        window: D of the paper, places on each side of p.

    Raises:
        InputError: if the window is less than 1 or larger than the grid, or the score depends only on the
            place's number.
    """

    def __init__(
        self,
        query_size: int,
        value_size: int,
        score: Callable[[int, int], Score] = GeneralScore,
        window: int = 1,
    ) -> None:
        super().__init__()
        if window < 1:
            raise InputError(f"window is {window}; local attention needs at least 1 place on each side")
        self.score = score(query_size, value_size)
        if not self.score.by_content:
            raise InputError(
                f"{type(self).__name__} cannot use {type(self.score).__name__}, which does not depend on the window's "
                "content; choose another score"
            )
        self.window = window

    def check_grid(self, grid: tuple[int, int]) -> None:
        span = 2 * self.window + 1
        if 1 < min(grid) < span:
            raise InputError(
                f"window is {self.window}, so it covers {span}×{span} places, but the grid has {grid[0]}×{grid[1]}; "
                f"set window to at most {(min(grid) - 1) // 2}"
                + ("" if min(grid) > 2 else ", or use a mechanism without a window")
            )

    def keys(self, values: Tensor) -> Tensor:
        return self.score.keys(values)

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> LocalMemory:
        memory = super().prepare(values, grid, mask)
        extent = torch.tensor(grid, device=values.device).expand(values.shape[0], 2)
        if mask is not None:
            rows, columns = (mask.unflatten(1, grid).any(dim=axis) for axis in (2, 1))
            count = [(n * torch.arange(1, n.shape[1] + 1, device=n.device)).amax(dim=1) for n in (rows, columns)]
            extent = torch.stack(count, dim=1)
        return LocalMemory(**vars(memory), extent=extent)

    @property
    def shrunk(self) -> float:
        """How far the window has shrunk from the whole image, 0, to D places on each side, 1."""
        return 1.0

    def position(self, query: Tensor, extent: Tensor, t: int) -> Tensor:
        """p: (N, 2) row and column, from the query (N, Q), the number of rows and columns (N, 2), and the step."""
        raise NotImplementedError

    def reweigh(self, weights: Tensor, distance: Tensor, reach: Tensor) -> Tensor:
        """The weights from the softmax (N, n), the distances (N, n, 2) from p in rows and columns, and D (N, 1)."""
        return weights

    def forward(self, query: Tensor, memory: LocalMemory, t: int) -> Glimpse:
        extent = memory.extent.repeat_interleave(query.shape[0] // memory.extent.shape[0], dim=0)
        # An axis with a single place has no position: a sequence is a grid of one row.
        position = self.position(query, extent, t).masked_fill(extent == 1, 0)
        shrunk = self.shrunk
        around = math.ceil(shrunk * self.window + (1 - shrunk) * max(memory.grid))
        reach = shrunk * self.window + (1 - shrunk) * extent.amax(dim=1, keepdim=True)
        rows, columns = (_candidates(position[:, axis], n, around) for axis, n in enumerate(memory.grid))
        row, column = torch.broadcast_tensors(rows.unsqueeze(2), columns.unsqueeze(1))
        place = torch.stack([row, column], dim=-1).flatten(1, 2)  # (N, n, 2)
        distance = place - position.unsqueeze(1)
        limit = torch.tensor(memory.grid, device=place.device)
        inside = ((place >= 0) & (place < limit) & (distance.detach().abs() <= reach.unsqueeze(-1))).all(dim=-1)
        place = place.clamp(min=0).minimum(limit - 1)
        index = place[..., 0] * memory.grid[1] + place[..., 1]  # (N, n)
        if memory.mask is not None:
            inside = inside & _gather(memory.mask.unsqueeze(-1), index).squeeze(-1)
        scores = self.score(query.unsqueeze(1), _gather(memory.keys, index)).squeeze(1).float()
        weights = scores.masked_fill(~inside, torch.finfo(scores.dtype).min).softmax(dim=-1) * inside
        weights = self.reweigh(weights, distance, reach)
        values = _gather(memory.values, index)
        context = (weights.to(values.dtype).unsqueeze(1) @ values).squeeze(1)
        weights = weights.new_zeros(index.shape[0], memory.values.shape[1]).scatter_add(1, index, weights)
        return Glimpse.soft(context, weights)


class MonotonicLocalAttention(LocalAttention):
    """local-m (Luong 2015, section 3.2): the position follows a fixed schedule.

    On a sequence p_t = t, as published; it stays at the last place if there are more steps than places. On a grid there
    is no monotonic alignment: p_t visits windows that tile the grid in reading order, left to right and top to bottom,
    their centres `stride` places apart, and then starts over.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).
        window: D of the paper, places on each side of p.
        stride: distance between positions on a grid, in places; 0 means 2D + 1, so that windows are adjacent.
    """

    def __init__(
        self,
        query_size: int,
        value_size: int,
        score: Callable[[int, int], Score] = GeneralScore,
        window: int = 1,
        stride: int = 0,
    ) -> None:
        super().__init__(query_size, value_size, score, window)
        if stride < 0:
            raise InputError(f"stride is {stride}; it must be at least 1, or 0 for adjacent windows")
        self.stride = stride or 2 * window + 1

    def position(self, query: Tensor, extent: Tensor, t: int) -> Tensor:
        rows, columns = extent.unbind(dim=1)
        across = (columns + self.stride - 1) // self.stride
        number = t % (across * ((rows + self.stride - 1) // self.stride))
        block = torch.stack([number // across, number % across], dim=1)
        walked = (block * self.stride + self.stride // 2).minimum(extent - 1)
        along = (torch.zeros_like(extent) + t).minimum(extent - 1)
        return torch.where((extent == 1).any(dim=1, keepdim=True), along, walked).float()


class PredictiveLocalAttention(LocalAttention):
    """local-p: p = S · σ(v ᵀ tanh(W q)), and weights α · exp(−(s − p)² / 2σ²) with σ = D/2 (Luong 2015, eq. 9 and 10).

    As published, the weights are not renormalised after the Gaussian. On a grid the row and the column are predicted,
    each with its own v and S, and the Gaussian is separable.

    Args:
        query_size: Q, size of the query.
        value_size: D, size of an annotation vector.
        score: constructs the score from (Q, D).
        window: D of the paper, places on each side of p.
        hidden: size of the layer that predicts the position.
        soft_start: share of training, at its beginning, in which the window shrinks from the whole image to D; 0 as
            published. What is outside a window has no gradient, so a small one learns its position slowly.

    Raises:
        InputError: as `LocalAttention`, or if `soft_start` is out of its range.
    """

    def __init__(
        self,
        query_size: int,
        value_size: int,
        score: Callable[[int, int], Score] = GeneralScore,
        window: int = 1,
        hidden: int = 128,
        soft_start: float = 0.0,
    ) -> None:
        super().__init__(query_size, value_size, score, window)
        check_soft_start(soft_start)
        self.soft_start = soft_start
        self.hidden = Linear(query_size, hidden, bias=False)
        self.place = Linear(hidden, 2, bias=False)

    def position(self, query: Tensor, extent: Tensor, t: int) -> Tensor:
        return extent * torch.sigmoid(self.place(torch.tanh(self.hidden(query))).float())

    @property
    def shrunk(self) -> float:
        return min(1.0, self.progress / self.soft_start) if self.training and self.soft_start else 1.0

    def reweigh(self, weights: Tensor, distance: Tensor, reach: Tensor) -> Tensor:
        return weights * torch.exp(-distance.square().sum(dim=-1) / (2 * (reach / 2) ** 2))


def _candidates(position: Tensor, size: int, around: int) -> Tensor:
    """(N, n) places of an axis of `size` places that include the window; some may be outside the grid."""
    if 2 * around + 1 > size:
        return torch.arange(size, device=position.device).expand(len(position), -1)
    return position.detach().round().long().unsqueeze(1) + torch.arange(-around, around + 1, device=position.device)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Gather rows of images (B, L, A) by index (N, n): (N, n, A)."""
    of_image = index.view(rows.shape[0], -1, 1).expand(-1, -1, rows.shape[-1])
    return rows.gather(1, of_image).view(*index.shape, -1)
