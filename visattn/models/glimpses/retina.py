"""The sensor of a glimpse model: what is seen of a picture around a location.

Locations are pairs (vertical, horizontal) in [−1, 1]: −1 is the picture's upper or left *edge*, 1 its lower or right
one, so that the centre of pixel i of n is at (2 i + 1) / n − 1.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visattn.errors import InputError, require_choice, require_number

Padding = Literal["zeros", "edge"]


class Sensor(nn.Module):
    """The interface. A constructor takes `image_size` first; everything else has a default.

    Attributes:
        channels: C of a glimpse.
        size: side of a glimpse, in values.
        squares: sides of the squares that a glimpse covers, in the picture's pixels, smallest first; for drawing and
            for counting what is read.
    """

    channels: int
    size: int
    squares: tuple[int, ...]

    def forward(self, images: Tensor, locations: Tensor) -> Tensor:
        """Images (B, 3, h, w) and locations (B, 2) to glimpses (B, C, size, size)."""
        raise NotImplementedError


class Retina(Sensor):
    """Concentric squares at falling resolution (Mnih 2014, section 3.1): sharp in the middle, coarse around it.

    Square k has a side of size · growth^k pixels and is reduced to size × size by the mean over its pixels. A location
    between pixels shifts the squares by a fraction, with bilinear interpolation, so that a glimpse is a continuous and
    almost everywhere differentiable function of its location; on whole pixels it is exactly a crop and its means.

    All squares of all pictures are sampled in one operation (`grid_sample`): a shift and a mean can be exchanged, and
    so the samples lie one pixel apart, and the means follow.

    Args:
        image_size: (h, w) of the pictures.
        size: side of the innermost square and of every reduced one.
        scales: number of squares.
        growth: by how much each square's side exceeds that of the one inside it.
        padding: what is beyond the border: "zeros", which are the mean colour of normalised pictures, or "edge", the
            nearest pixel.

    Raises:
        InputError: if an option is out of its range, or the largest square is larger than the picture.
    """

    offsets: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        size: int = 8,
        scales: int = 3,
        growth: int = 2,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        require_number("size of the retina", size, least=1)
        require_number("scales of the retina", scales, least=1)
        require_number("growth of the retina", growth, least=2)
        require_choice("padding of the retina", padding, get_args(Padding))
        self.squares: tuple[int, ...] = (size,)
        while len(self.squares) < scales and self.squares[-1] <= min(image_size):
            self.squares += (self.squares[-1] * growth,)
        if self.squares[-1] > min(image_size):
            raise InputError(
                f"the largest square of the retina has {self.squares[-1]}×{self.squares[-1]} pixels and the picture "
                f"{image_size[0]}×{image_size[1]}; lower size, scales or growth"
            )
        self.image_size, self.size, self.growth, self.padding = tuple(image_size), size, growth, padding
        self.channels = 3 * scales
        self.register_buffer("offsets", torch.cat([_offsets(side) for side in self.squares]), persistent=False)

    def forward(self, images: Tensor, locations: Tensor) -> Tensor:
        """Images (B, 3, h, w) and locations (B, 2) to glimpses (B, 3 scales, size, size), the innermost first."""
        height, width = images.shape[-2:]
        pixel = self.offsets.new_tensor([2 / width, 2 / height])
        points = locations.flip(-1)[:, None, None] + self.offsets * pixel  # (B, 1, N, 2), horizontal first
        padding = "border" if self.padding == "edge" else "zeros"
        samples = F.grid_sample(images, points, "bilinear", padding, align_corners=False)
        parts = samples[:, :, 0].split([side * side for side in self.squares], dim=-1)
        squares = [
            F.avg_pool2d(part.unflatten(-1, (side, side)), side // self.size)
            for part, side in zip(parts, self.squares, strict=True)
        ]
        return torch.cat(squares, dim=1)


def _offsets(side: int) -> Tensor:
    """(side², 2) from a square's middle to the centres of its pixels, in pixels, row by row; horizontal first."""
    along = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    return torch.stack(torch.meshgrid(along, along, indexing="xy"), dim=-1).flatten(0, 1)


def coverage(squares: Sequence[int], image_size: tuple[int, int], locations: Tensor) -> Tensor:
    """Share of a picture's pixels whose centre lies in any of these squares at any location, (B, T, 2) to (B,)."""
    height, width = image_size
    rows, columns = ((torch.arange(n, device=locations.device) + 0.5) * 2 / n - 1 for n in (height, width))
    side = max(squares)  # the squares are concentric
    down = (locations[..., :1] - rows).abs() <= side / height  # (B, T, h)
    across = (locations[..., 1:] - columns).abs() <= side / width
    return (down[..., :, None] & across[..., None, :]).any(dim=1).float().mean(dim=(1, 2))
