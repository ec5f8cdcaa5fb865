"""What a training image shows of a photograph: a random part, mirrored or not; and what becomes of regions in it."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

_RATIO = 4 / 3  # the greatest of a part's sides relative to the whole's (Szegedy et al. 2015)


class Part(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """A part of an image, stretched to the image's size and then, perhaps, mirrored left to right.

    Attributes:
        part: the part; None is the whole image.
        mirrored: whether it is mirrored.
    """

    part: Part | None = None
    mirrored: bool = False

    def of_image(self, image: Tensor) -> Tensor:
        """The view of an image (C, H, W), of the same size."""
        if self.part is not None:
            image = F.resized_crop(image, *self.part, list(image.shape[-2:]), antialias=True)
        return image.flip(-1) if self.mirrored else image

    def of_mask(self, mask: np.ndarray) -> np.ndarray:
        """The view of a region (H, W) of the image, boolean, of the same size."""
        if self.part is not None:
            begin, sides = self.part[:2], self.part[2:]
            within = (
                first + (np.arange(size) + 0.5) * side // size
                for first, side, size in zip(begin, sides, mask.shape, strict=True)
            )
            mask = mask[np.ix_(*(places.astype(int) for places in within))]
        return mask[:, ::-1] if self.mirrored else mask


def random_parts(count: int, size: tuple[int, int], least: float, generator: torch.Generator) -> list[Part]:
    """Random parts of images of `size` (h, w).

    As torchvision's `RandomResizedCrop`: the area is uniform between `least` and all of the image, and the logarithm of
    the ratio of its sides, relative to the image's, between those of 3/4 and 4/3, as far as both fit in the image.

    Args:
        count: number of parts.
        size: of the images.
        least: the smallest share of the area, above 0 and at most 1.
        generator: of the draws.
    """
    area, ratio, top, left = torch.rand(4, count, generator=generator, dtype=torch.double)
    area = least + (1 - least) * area
    ratio = ((2 * ratio - 1) * (-area.log()).clamp(max=math.log(_RATIO))).exp()
    shares = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()])
    whole = torch.tensor(size).unsqueeze(1)
    sides = (shares * whole).round().long().clamp(min=1)
    begin = (torch.stack([top, left]) * (whole - sides + 1)).long()
    return [Part(*numbers) for numbers in torch.cat([begin, sides]).T.tolist()]
