"""The interface of all spatial attention: its inputs and outputs.

Axis letters: B images, L places, H × W = L the grid of places, D the size of an annotation vector, A the size in which
keys and query are compared, Q the size of the query, N = B K captions: K of each image, in a row, be they references,
samples or beams. They share the image's row of the memory, which is never copied for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from visattn.fast.conversion import working_precision


@dataclass(frozen=True, eq=False)
class Memory:
    """What is attended to, prepared once per image; a mechanism that keeps more of an image extends it by a field.

    Attributes:
        values: (B, L, D) annotation vectors.
        keys: (B, L, A) what the query is compared with; projected here, never inside a step. With heads
            it is (B, heads, L, d).
        grid: (H, W) with H * W == L; L itself tells nothing about the shape.
        mask: (B, L) bool, True where a place may be attended, or None where all may.
    """

    values: Tensor
    keys: Tensor
    grid: tuple[int, int]
    mask: Tensor | None = None

    def per_image(self, x: Tensor) -> Tensor:
        """What belongs to captions (N, …) by image: (B, K, …)."""
        return x.unflatten(0, (self.values.shape[0], -1))

    def rows(self, index: Tensor) -> Self:
        """The memories of the images `index`, a row of this one for each."""
        return self.map(lambda part: part[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A memory with each tensor changed."""
        parts = {name: change(part) if isinstance(part, Tensor) else part for name, part in vars(self).items()}
        return type(self)(**parts)


class Glimpse(NamedTuple):
    """What one act of attention saw. `stack` puts a time axis behind N.

    Attributes:
        context: (N, D) the expected or the drawn annotation vector.
        weights: (N, L) the distribution over places, α; float32 whatever the precision of the rest.
        focus: (N, L) what really multiplied the values: α when soft, one-hot where a place was drawn.
        log_prob: (N,) log-probability of what was drawn; 0 where nothing was.
        gate: (N,) β, what a decoder multiplied the context by (Xu 2015, section 4.2.1); 1 where it has no such gate.
    """

    context: Tensor
    weights: Tensor
    focus: Tensor
    log_prob: Tensor
    gate: Tensor

    @classmethod
    def soft(cls, context: Tensor, weights: Tensor) -> "Glimpse":
        """A look at all places by their weights (…, L): nothing was drawn, nothing gated."""
        one = torch.ones_like(weights[..., 0])
        return cls(context, weights, weights, torch.zeros_like(one), one)

    @staticmethod
    def stack(glimpses: "list[Glimpse]") -> "Glimpse":
        """Glimpses of T steps as one: (N, T, D), (N, T, L), (N, T, L), (N, T), (N, T)."""
        return Glimpse(*(torch.stack(part, dim=1) for part in zip(*glimpses, strict=True)))


def check_places(values: Tensor, grid: tuple[int, int]) -> None:
    """Raise a `ValueError` where a grid (H, W) does not have as many places as there are values (B, L, D)."""
    if grid[0] * grid[1] != values.shape[1]:
        raise ValueError(f"a grid of {grid[0]}×{grid[1]} places cannot hold {values.shape[1]} annotation vectors")


class SpatialAttention(nn.Module):
    """A mechanism that looks at a grid of annotation vectors, guided by a query.

    Subclasses define `keys` and `forward`. Constructors take the sizes of the query (Q) and of the values (D) first; a
    decoder supplies them, everything else comes from the configuration.

    Masked places are never attended, and padding changes nothing: a grid with masked margins gives the glimpses of the
    grid without them.
    """

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Whether the mechanism can look at a grid of (H, W) places.

        Raises:
            InputError: if it cannot; the sentence names the option.
        """

    def keys(self, values: Tensor) -> Tensor:
        """(B, L, D) annotation vectors to (B, L, A) keys."""
        raise NotImplementedError

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """Do once all that depends on the image alone.

        Args:
            values: (B, L, D) annotation vectors; kept in autocast's precision where that is on.
            grid: (H, W) of the places.
            mask: (B, L) bool, True where a place may be attended; every row needs at least one.

        Raises:
            ValueError: if the grid does not have L places.
        """
        check_places(values, grid)
        self.check_grid(grid)
        values = working_precision(values)
        return Memory(values, self.keys(values), grid, mask)

    def forward(self, query: Tensor, memory: Memory, t: int) -> Glimpse:
        """Attend once. `query` (N, Q) is the decoder's state, `t` the number of the step, from 0."""
        raise NotImplementedError

    def terms(self, query: Tensor, memory: Memory, glimpse: Glimpse) -> tuple[Tensor, Tensor]:
        """A glimpse's context as the sum that it is: Σ_h Σ_i weights_hi vectors_hi, and what depends on no weight.

        Returns:
            weights (N, heads, L), what really multiplied, and vectors (B, heads, L, D), which the image alone decides.
        """
        return glimpse.focus.unsqueeze(1), memory.values.unsqueeze(1)
