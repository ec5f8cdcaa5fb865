"""RandAugment and TrivialAugment for a whole batch at once: each image gets operations of its own.

The operations and their strengths are torchvision's (`torchvision.transforms.v2`), for images of uint8 and its default
of the nearest pixel. Images are sorted by operation, so that each operation runs once. Devices may round differently,
by a level of grey, or between two pixels that are equally near.
"""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as v2

from visattn.data.augment import BatchTransform, sent
from visattn.errors import InputError

BINS = 31  # of strengths

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDED = ("Brightness", "Color", "Contrast", "Sharpness")
SIGNED = (*GEOMETRIC, *BLENDED)
PLAIN = ("Identity", "AutoContrast", "Equalize")  # without a strength
OPERATIONS = (*SIGNED, "Posterize", "Solarize", *PLAIN)


class Policy(BatchTransform):
    """The base of both: images by operation, and the operations.

    Args:
        rounds: operations in turn on each image.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    @abstractmethod
    def strengths(self, side: int) -> dict[str, Tensor]:
        """The strengths of operations, (BINS,) each, for images of this many pixels in the direction of a shift."""

    def bins(self, count: int, generator: torch.Generator) -> Tensor:
        """The bin of each image's strength, (B,) int64."""
        return torch.randint(BINS, (count,), generator=generator)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As in `BatchTransform`."""
        for _ in range(self.rounds):
            which = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
            bins = self.bins(len(images), generator)
            signs = 1 - 2 * (torch.rand(len(images), generator=generator) <= 0.5).double()
            images = self.applied(images, which, bins, signs)
        return images

    def applied(self, images: Tensor, which: Tensor, bins: Tensor, signs: Tensor) -> Tensor:
        """A copy after one operation.

        Args:
            images: (B, 3, H, W) uint8.
            which: (B,) numbers in OPERATIONS, on the CPU.
            bins: (B,) bins of the strengths, on the CPU.
            signs: (B,) 1 or -1, for operations that have a direction, on the CPU.
        """
        tables = {side: self.strengths(side) for side in set(images.shape[2:])}
        order, counts = which.argsort(stable=True), which.bincount(minlength=len(OPERATIONS)).tolist()
        numbers = torch.zeros(6, len(images))  # of the sorted images: a matrix, or the numbers of a tone
        for name, rows, own in zip(OPERATIONS, order.split(counts), numbers.split(counts, dim=1), strict=True):
            table = tables[images.shape[2 if name.endswith("Y") else 3]].get(name)
            if table is not None:
                strengths = table.double()[bins[rows]] * (signs[rows] if name in SIGNED else 1)
                own[:] = _numbers(name, strengths, images.shape[2:])
        places, numbers = sent(order, images.device), sent(numbers, images.device)
        moved, *toned = images[places].split([sum(counts[: len(GEOMETRIC)]), *counts[len(GEOMETRIC) :]])
        done = [_moved(moved, numbers[:, : len(moved)])]
        parts = numbers.split(counts, dim=1)[len(GEOMETRIC) :]
        for name, block, own in zip(OPERATIONS[len(GEOMETRIC) :], toned, parts, strict=True):
            done.append(_toned(name, block, own[:3].view(3, -1, 1, 1, 1)) if len(block) else block)
        return torch.empty_like(images).index_copy_(0, places, torch.cat(done))


class TrivialAugment(Policy):
    """One operation of random strength on each image: torchvision's TrivialAugmentWide (Müller & Hutter 2021)."""

    def __init__(self) -> None:
        super().__init__(1)

    def strengths(self, side: int) -> dict[str, Tensor]:
        """As in `Policy`."""
        return _table(shear=0.99, shift=32.0, angle=135.0, blend=0.99, lost_bits=6)


class RandAugment(Policy):
    """Some operations of one strength on each image (Cubuk 2020).

    Args:
        operations: how many, in turn.
        magnitude: the strength, from 0 to 30.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, operations: int = 2, magnitude: int = 9) -> None:
        super().__init__(operations)
        if operations < 0 or not 0 <= magnitude < BINS:
            raise InputError(
                f"RandAugment has operations {operations} and magnitude {magnitude}; they must be at least 0, and the "
                f"magnitude at most {BINS - 1}"
            )
        self.magnitude = magnitude

    def bins(self, count: int, generator: torch.Generator) -> Tensor:
        """As in `Policy`: all the same."""
        return torch.full((count,), self.magnitude)

    def strengths(self, side: int) -> dict[str, Tensor]:
        """As in `Policy`."""
        return _table(shear=0.3, shift=150.0 / 331.0 * side, angle=30.0, blend=0.9, lost_bits=4)


def _table(shear: float, shift: float, angle: float, blend: float, lost_bits: int) -> dict[str, Tensor]:
    """Strengths that grow linearly to the given ones; shifts are whole pixels."""
    up = {name: torch.linspace(0.0, blend, BINS) for name in BLENDED}
    up |= {name: torch.linspace(0.0, shear, BINS) for name in ("ShearX", "ShearY")}
    up |= {name: torch.linspace(0.0, shift, BINS).trunc() for name in ("TranslateX", "TranslateY")}
    bits = (8 - torch.arange(BINS) / ((BINS - 1) / lost_bits)).round()
    rest = {"Posterize": bits, "Solarize": torch.linspace(1.0, 0.0, BINS) * 255}
    return {**up, "Rotate": torch.linspace(0.0, angle, BINS), **rest}


def _numbers(name: str, strengths: Tensor, size: tuple[int, int]) -> Tensor:
    """What an operation takes: (6, B), of which tones use three.

    A matrix of two rows maps places in the result to those in the image, in pixels from the image's middle. A tone has
    factors of the image and of what it is blended with, and its strength.
    """
    height, width = size
    one, zero = torch.ones_like(strengths), torch.zeros_like(strengths)
    if name == "Rotate":  # counter-clockwise, and y points down
        angle = torch.deg2rad(strengths)
        return torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero])
    if name == "ShearX":  # the upper left corner stays
        return torch.stack([one, strengths, strengths * height / 2, zero, one, zero])
    if name == "ShearY":
        return torch.stack([one, zero, zero, strengths, one, strengths * width / 2])
    if name == "TranslateX":
        return torch.stack([one, zero, -strengths, zero, one, zero])
    if name == "TranslateY":
        return torch.stack([one, zero, zero, zero, one, -strengths])
    return torch.stack([1 + strengths, -strengths, strengths, zero, zero, zero])


def _moved(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image's nearest pixels where its matrix (6, B) says; black beyond the edges."""
    if not len(images):
        return images
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) + 0.5 - width / 2
    y = torch.arange(height, device=images.device)[:, None] + 0.5 - height / 2
    a, b, c, d, e, f = matrices.view(6, -1, 1, 1)  # no matrix product, which some devices round
    grid = torch.stack([(a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)], dim=-1)
    return F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False).to(images)


def _toned(name: str, images: Tensor, numbers: Tensor) -> Tensor:
    """An operation that leaves pixels at their places; numbers are (3, B, 1, 1, 1)."""
    own, other, strength = numbers
    if name == "Identity":
        return images
    if name == "AutoContrast":
        return v2.autocontrast(images)
    if name == "Equalize":
        return v2.equalize(images)
    if name == "Posterize":
        step = 2 ** (8 - strength)
        return ((images / step).floor() * step).to(torch.uint8)
    if name == "Solarize":
        return torch.where(images >= strength, 255 - images, images)
    pixels = images.float()
    if name == "Sharpness":
        base = _smoothed(pixels)
    elif name == "Brightness":
        base = torch.zeros_like(own)
    else:
        base = v2.rgb_to_grayscale(images).float()
        if name == "Contrast":
            base = base.mean(dim=(1, 2, 3), keepdim=True)
    return (pixels * own + base * other).clamp_(0, 255).to(torch.uint8)


def _smoothed(pixels: Tensor) -> Tensor:
    """A 3×3 mean in which the middle counts five times, rounded; the outermost pixels as they are."""
    out, inner = pixels.clone(), pixels[..., 1:-1, 1:-1]
    out[..., 1:-1, 1:-1] = ((F.avg_pool2d(pixels, 3, stride=1, divisor_override=1) + 4 * inner) / 13).round_()
    return out
