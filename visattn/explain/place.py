"""Where a given patch attends, instead of the class tokens, or where each of them does."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.layered import AT_ONCE
from visattn.explain.vit import Logits, Reading, ViT
from visattn.images import Geometry


class AtPatches(ViT):
    """A Vision Transformer whose maps are what one patch of each image attends to.

    It shares the network of the model that it is made from. `Raw`, `Rollout` and `ValueNorm` follow the patch's row as
    they follow the class token's; methods that explain a class have no such row.

    Args:
        vit: the model.
        cells: (B,) the patch asked about in each image of a batch, counted row by row.

    Raises:
        InputError: if the model's layers do not attend over one grid.
    """

    def __init__(self, vit: ViT, cells: Sequence[int]) -> None:
        require_one_grid(vit, "--at")
        self.__dict__.update(vars(vit))
        self.cells_asked = list(cells)

    def read(self, matrix: Tensor, seen: Logits) -> Tensor:
        """The patches' entries in each image's asked row: (B, …, N, N) to (B, …, H, W)."""
        rows = torch.stack([part[..., self.prefix + n, :] for part, n in zip(matrix, self.cells_asked, strict=True)])
        return rows[..., self.prefix :].unflatten(-1, seen.grid)

    def reading_rows(self, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Reading:
        """The asked patch's attention to the patches: (B, layers, heads, H, W), float32."""
        chosen = [self.layer(number) for number in (range(self.depth) if layers is None else layers)]
        asked = torch.tensor(self.cells_asked)
        kept: dict[int, Tensor] = {}

        def on_call(layer: int, call: AttentionCall) -> None:
            if layer not in chosen:
                return
            for cell in sorted(set(self.cells_asked)):  # one row is computed for all images of a batch
                row = call.weights(_queries(self, cell, cell + 1), self._heads(heads, call))[:, :, 0]
                mine = (asked == cell).view(-1, 1, 1).to(row.device)
                kept[layer] = torch.where(mine, row, kept.get(layer, row))

        def result(seen: Logits) -> Tensor:
            rows = torch.stack([kept[layer] for layer in chosen], dim=1)
            return rows[..., self.prefix :].unflatten(-1, seen.grid)

        return Reading(on_call, result)


def patch_queries(vit: ViT, layers: Sequence[int] | None = None) -> dict[str, Reading]:
    """Where every patch attends, the mean of the heads, in 8 bits, for a run shared with other readings.

    A row's weights are stored in steps of 1/255 of its largest, so each is off by at most 1/510 of that. Rows are
    computed piece by piece: the weights of a layer in float32, for each head, may need a hundred times the memory.

    Args:
        vit: the model; its N patches are counted row by row.
        layers: their numbers, in this order; None for all.

    Returns:
        Readings of `queries`, (B, layers, N, N) uint8, and `queries_high`, (B, layers, N) float32, the largest weight
        of each row: row n of a layer is `queries[n] / 255 * queries_high[n]`.

    Raises:
        InputError: if there is no such layer, the model's layers do not attend over one grid, or weights may be
            negative.
    """
    require_one_grid(vit, "--queries")
    if vit.signed:
        raise InputError(f"the weights of {vit.name} may be negative, and --queries carries shares; use --at")
    chosen = [vit.layer(number) for number in (range(vit.depth) if layers is None else layers)]
    cells: dict[int, Tensor] = {}
    high: dict[int, Tensor] = {}

    def on_call(layer: int, call: AttentionCall) -> None:
        if layer not in chosen:
            return
        images, heads, tokens, _ = call.shape
        count, pieces = max(1, AT_ONCE // (images * heads * tokens)), []
        for first in range(0, tokens - vit.prefix, count):
            rows = call.weights(_queries(vit, first, min(first + count, tokens - vit.prefix))).mean(dim=1)
            rows = rows[..., vit.prefix :]
            largest = rows.amax(dim=-1)
            step = largest.clamp(min=torch.finfo(rows.dtype).tiny).unsqueeze(-1) / 255
            pieces.append(((rows / step).round().clamp(max=255).to(torch.uint8), largest))
        cells[layer], high[layer] = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))

    def stacked(kept: dict[int, Tensor]) -> Callable[[Logits], Tensor]:
        return lambda seen: torch.stack([kept[layer] for layer in chosen], dim=1)

    return {"queries": Reading(on_call, stacked(cells)), "queries_high": Reading(lambda *_: None, stacked(high))}


def _queries(vit: ViT, first: int, last: int) -> slice:
    """The tokens of the patches from `first` to before `last`."""
    return slice(vit.prefix + first, vit.prefix + last)


def require_one_grid(vit: ViT, option: str) -> None:
    """Refuse a model whose layers do not share one grid of patches.

    Args:
        vit: the model.
        option: what needs the grid, for the message.

    Raises:
        InputError: if it has none.
    """
    if not vit.one_grid:
        raise InputError(f"{vit.name} has no one grid of patches that attend in every layer, which {option} needs")


def patch_at(x: int, y: int, geometry: Geometry, grid: tuple[int, int], name: str) -> int:
    """The patch, counted row by row, that sees a pixel of the original image.

    Args:
        x: the pixel's column, from 0.
        y: its row, from 0.
        geometry: of the image and its input.
        grid: (H, W) of the patches.
        name: of the image, for messages.

    Raises:
        InputError: if the image has no such pixel, or the model does not see it.
    """
    height, width = geometry.original
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"{name} has {width}×{height} pixels, counted from 0, so there is no pixel {x},{y} (--at)")
    point, (low, high) = geometry.to_input(np.array([y + 0.5, x + 0.5])), geometry.seen
    if not all(a <= p < b for a, p, b in zip(low, point, high, strict=True)):
        top, left, bottom, right = (round(side) for side in geometry.visible())
        raise InputError(
            f"pixel {x},{y} of {name} is outside the part that the model sees, {left},{top} to {right},{bottom}; "
            "give one within it (--at)"
        )
    cells = geometry.cells(grid)
    row, column = (
        min(max(int((p - shift) // stride), 0), count - 1)
        for p, shift, stride, count in zip(point, cells, cells.stride, grid, strict=True)
    )
    return row * grid[1] + column
