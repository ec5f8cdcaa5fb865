"""Sinusoidal position encodings of words in a caption and places in an image (Vaswani 2017, section 3.5)."""

import torch
from torch import Tensor

from visattn.attention.contract import check_places
from visattn.errors import InputError


def sinusoid(positions: Tensor, size: int) -> Tensor:
    """Positions (N,) to (N, size), size even: sin(p / 10000^(2i / size)) in 2i, the cosine in 2i + 1.

    Vaswani 2017, section 3.5.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size
    angles = positions.unsqueeze(-1) / 10000**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def grid_sinusoid(grid: tuple[int, int], size: int, device: torch.device | None = None) -> Tensor:
    """(H, W, size) of a grid of (H, W) places: `sinusoid` of the row in the first half, of the column in the second.

    Rows and columns are counted from the top left, so that a larger grid has the same vectors there.
    """
    row, column = (sinusoid(torch.arange(n, device=device), size // 2) for n in grid)
    return torch.cat([row[:, None].expand(*grid, -1), column.expand(*grid, -1)], dim=-1)


def placed(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add `grid_sinusoid` to the vectors (B, L, S) of a grid's places.

    Raises:
        ValueError: if the grid does not have L places.
    """
    check_places(values, grid)
    return values + grid_sinusoid(grid, values.shape[-1], values.device).flatten(0, 1).to(values.dtype)


def check_placed_size(name: str, size: int) -> None:
    """Raise an `InputError` if `grid_sinusoid` does not support a size."""
    if size < 4 or size % 4:
        raise InputError(f"{name} is {size}; for position encodings of rows and columns it must be a multiple of 4")
