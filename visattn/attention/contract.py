"""The interface of all spatial attention: its inputs and outputs.

Axis letters: B images, L places, H × W = L the grid of places, D the size of an annotation vector, A the size of keys,
Q the size of the query, N = B K captions: K consecutive captions per image, which may be references, samples or beams.
They share the image's row of the memory, which is never copied for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.fast.conversion import working_precision


@dataclass(frozen=True, eq=False)
class Memory:
    """The prepared image, computed once; a mechanism that stores more per image adds fields in a subclass.

    Attributes:
        values: (B, L, D) annotation vectors.
        keys: (B, L, A) keys, projected here and not at each step; (B, heads, L, d) with heads.
        grid: (H, W) with H * W == L.
        mask: (B, L) bool, True if a place may be attended, or None if all may.
    """

    values: Tensor
    keys: Tensor
    grid: tuple[int, int]
    mask: Tensor | None = None

    def per_image(self, x: Tensor) -> Tensor:
        """Reshape a tensor of captions (N, …) to (B, K, …)."""
        return x.unflatten(0, (self.values.shape[0], -1))

    def rows(self, index: Tensor) -> Self:
        """The memories of the images `index`, a row of this one for each."""
        return self.map(lambda part: part[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A memory with each tensor changed."""
        parts: dict[str, Any] = {
            name: change(part) if isinstance(part, Tensor) else part for name, part in vars(self).items()
        }
        return type(self)(**parts)


class Glimpse(NamedTuple):
    """The result of one attention step. `stack` adds a time axis after N.

    Attributes:
        context: (N, D) the expected or sampled annotation vector.
        weights: (N, L) the distribution over places, α; always float32.
        focus: (N, L) the weights that actually multiplied the values: α if soft, one-hot for a sampled place.
        log_prob: (N,) log-probability of the sample; 0 if nothing was sampled.
        gate: (N,) the share of the places in the context: the decoder's gate β (Xu 2015, section 4.2.1), times what a
            sentinel or the picture as a whole leaves; 1 if there is none of them.
    """

    context: Tensor
    weights: Tensor
    focus: Tensor
    log_prob: Tensor
    gate: Tensor

    @classmethod
    def soft(cls, context: Tensor, weights: Tensor) -> "Glimpse":
        """A glimpse with weights (…, L) over all places: nothing sampled, no gate."""
        one = torch.ones_like(weights[..., 0])
        return cls(context, weights, weights, torch.zeros_like(one), one)

    @staticmethod
    def stack(glimpses: "Sequence[Glimpse]") -> "Glimpse":
        """Glimpses of T steps as one: (N, T, D), (N, T, L), (N, T, L), (N, T), (N, T)."""
        return Glimpse(*(torch.stack(part, dim=1) for part in zip(*glimpses, strict=True)))


def check_places(values: Tensor, grid: tuple[int, int]) -> None:
    """Raise a `ValueError` if a grid (H, W) does not have as many places as there are values (B, L, D)."""
    if grid[0] * grid[1] != values.shape[1]:
        raise ValueError(f"a grid of {grid[0]}×{grid[1]} places cannot hold {values.shape[1]} annotation vectors")


def check_soft_start(share: float) -> None:
    """Raise an `InputError` if `share` is no share of training after which something remains."""
    if not 0 <= share < 1:
        raise InputError(f"soft_start is {share}; it must be at least 0 and less than 1")


class SpatialAttention(nn.Module):
    """A mechanism that attends to a grid of annotation vectors, given a query.

    Subclasses define `keys` and `forward`. Constructors take the sizes of the query (Q) and of the values (D) first; a
    decoder supplies them, everything else comes from the configuration.

    Masked places are never attended, and padding has no effect: a grid with masked margins gives the same glimpses as
    the grid without them.

    Attributes:
        progress: share of training that is done, from 0 to 1, for mechanisms that change along it; set by what trains
            the mechanism before each step.
    """

    progress: float = 1.0

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that the mechanism supports a grid of (H, W) places.

        Raises:
            InputError: if not; the message names the option.
        """

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) annotation vectors to (B, L, A) keys."""
        raise NotImplementedError

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """Compute once everything that depends only on the image.

        Args:
            values: (B, L, D) annotation vectors; stored in autocast's precision if it is enabled.
            grid: (H, W) of the places.
            mask: (B, L) bool, True if a place may be attended; every row needs at least one.

        Raises:
            ValueError: if the grid does not have L places.
        """
        check_places(values, grid)
        self.check_grid(grid)
        values = working_precision(values)
        return Memory(values, self.keys(values), grid, mask)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        """One attention step. `query` (N, Q) is the decoder's state, `t` the step number, from 0."""
        raise NotImplementedError

    def terms(self, query: Tensor, memory: Memory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """A glimpse's context as the sum Σ_h Σ_i weights_hi vectors_hi, plus terms that do not depend on the weights.

        Returns:
            weights (N, heads, L), which multiplied the vectors, and vectors (B, heads, L, D), which depend only on the
            image.
        """
        return glimpse.focus.unsqueeze(1), memory.values.unsqueeze(1)
