"""Attention rollout where layers attend within windows, to pooled keys, or on grids that become coarser.

Abnar and Zuidema 2020 multiply the matrices (A + I) / 2 of layers that attend from one set of tokens to the same. With
windows A is that matrix with zeros between windows. Where tokens are merged, a coarse token counts as the even mean of
the fine ones that it covers, and so does a pooled key. Rows are followed from the last layer back to the first, so that
no matrix of all tokens is made.

Axis letters: B images, P pieces of an image (windows), N queries, M keys, H W a grid, U tokens of no place.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.layered import AT_ONCE, Axis, Layer, Layered, spread
from visattn.explain.vit import Logits, Reading


class Shares(NamedTuple):
    """How much each token contributes to what is explained; all together at most 1.

    Attributes:
        cells: (B, H, W).
        axes: of the grid.
        tokens: (B, U), of class tokens and the like, in their order.
    """

    cells: Tensor
    axes: tuple[Axis, Axis]
    tokens: Tensor

    def on(self, axes: tuple[Axis, Axis]) -> "Shares":
        """The same on a finer grid."""
        return Shares(spread(self.cells, self.axes, axes), axes, self.tokens)

    def flat(self) -> Tensor:
        """(B, H W + U + 1), with a last entry for what has no token, such as padding."""
        nothing = self.tokens.new_zeros(len(self.tokens), 1)
        return torch.cat([self.cells.flatten(1), self.tokens, nothing], dim=1)


def layered_rollout(vit: Layered, fuse: Callable[[Tensor], Tensor]) -> Reading:
    """Rollout of all layers of a model, for a run shared with other readings: maps (B, H, W) on the finest grid.

    Args:
        vit: a model for which `require("attention rollout")` passes.
        fuse: weights (B, heads, N, M) to (B, N, M).

    Raises:
        InputError: while it runs, if weights are negative.
    """
    calls: list[AttentionCall] = []

    def result(seen: Logits) -> Tensor:
        layers = vit._layers
        tokens = max(int(layer.unplaced.sum()) for layer in layers)
        shares = _first(layers[-1], len(seen.logits), tokens, calls[-1].value.device)
        for number in reversed(range(len(layers))):
            before = layers[number - 1].query_axes if number else vit._finest.axes
            shares = _before(layers[number], calls[number], shares, before, fuse, vit.name)
        return shares.on(vit._finest.axes).cells

    return Reading(lambda layer, call: calls.append(call), result)


def _first(layer: Layer, images: int, tokens: int, device: torch.device) -> Shares:
    """What is explained: the mean of the rows that classes are read from."""
    height, width = (axis[2] for axis in layer.query_axes)
    slots = layer.slots(layer.queries, height * width, tokens).to(device)
    rows = layer.rows.to(device).float()
    flat = torch.zeros(height * width + tokens + 1, device=device)
    flat.index_add_(0, slots.flatten(), (rows / rows.sum()).flatten())
    return _shares(flat.expand(images, -1), layer.query_axes, tokens)


def _shares(flat: Tensor, axes: tuple[Axis, Axis], tokens: int) -> Shares:
    height, width = (axis[2] for axis in axes)
    cells, rest, _ = flat.split([height * width, tokens, 1], dim=1)
    return Shares(cells.unflatten(1, (height, width)), axes, rest)


def _before(
    layer: Layer,
    call: AttentionCall,
    after: Shares,
    axes: tuple[Axis, Axis],
    fuse: Callable[[Tensor], Tensor],
    name: str,
) -> Shares:
    """Shares of the tokens after a layer to those of the tokens before it, which have these axes."""
    after = after.on(layer.query_axes)
    flat, tokens = after.flat(), after.tokens.shape[1]
    pieces, _, queries, keys = layer.shape
    height, width = layer.grid
    asked = layer.slots(layer.queries, after.cells[0].numel(), tokens).to(flat.device)
    seen = layer.slots(layer.cell, height * width, tokens).to(flat.device)
    often = torch.bincount(asked.flatten(), minlength=flat.shape[1]).clamp(min=1)
    given = (flat / often)[:, asked.flatten()].unflatten(1, asked.shape)  # (B, P, N)
    stays = flat.index_fill(1, asked.flatten(), 0.0)
    received = flat.new_zeros(len(flat), height * width + tokens + 1)
    step = max(1, AT_ONCE // (call.shape[0] * call.shape[1] * keys))
    for first in range(0, queries, step):
        rows = slice(first, min(first + step, queries))
        weights = fuse(call.weights(rows)).unflatten(0, (-1, pieces))  # (B, P, rows, M)
        if (weights < 0).any():
            raise InputError(f"weights of {name} may be negative, so attention rollout is not defined; choose raw")
        share = given[:, :, rows] / (1 + weights.sum(dim=-1))
        stays.index_add_(1, asked[:, rows].flatten(), share.flatten(1))
        received.index_add_(1, seen.flatten(), torch.einsum("bpn,bpnm->bpm", share, weights).flatten(1))
    kept = _shares(stays, layer.query_axes, tokens).on(axes)
    moved = _shares(received, layer.axes, tokens).on(axes)
    return Shares(kept.cells + moved.cells, axes, kept.tokens + moved.tokens)
