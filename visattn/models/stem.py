"""A convolutional stem for a Vision Transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visattn.errors import InputError


class ConvolutionalStem(nn.Module):
    """Convolutions instead of the patch projection, with which a transformer trains faster.

    After Xiao et al. 2021, "Early Convolutions Help Transformers See Better". A 3×3 convolution at full resolution,
    then one of 4×4 with stride 2 for each halving down to the grid, each followed by a residual block of two 3×3
    ones; all with batch norm. Xiao's are 3×3 throughout, which shifts each halving by half a pixel to the upper left;
    with 4×4 and one pixel of padding, receptive fields are centred on their cells, so that maps can be drawn on a plain
    grid (`visattn.models.receptive_field`).

    A token's receptive field is larger than its cell: 36×36 pixels with a patch of 4, most of them with little weight.

    Args:
        patch: side of a cell in pixels, a power of two from 2 on.
        size: D, size of a token.
        widths: channels at full resolution and after each halving but the last, which has `size`.

    Raises:
        InputError: if the patch is not a power of two, or the number of widths does not match its number of halvings.
    """

    def __init__(self, patch: int, size: int, widths: Sequence[int] = (32, 96)) -> None:
        super().__init__()
        if patch < 2 or patch & (patch - 1):
            raise InputError(f"the patch of a convolutional stem is {patch}; it must be a power of two: 2, 4, 8 …")
        if 2 ** len(widths) != patch:
            raise InputError(
                f"a convolutional stem with a patch of {patch} needs {patch.bit_length() - 1} widths, "
                f"one for each downsampling step, not {len(widths)}"
            )
        layers: list[nn.Module] = [nn.Sequential(*_convolution(3, widths[0], 3, 1), nn.ReLU())]
        for narrow, wide in zip(widths, (*widths[1:], size), strict=True):
            layers += [nn.Sequential(*_convolution(narrow, wide, 4, 2), nn.ReLU()), Residual(wide)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) to a grid of tokens (B, H, W, D)."""
        return self.layers(images.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


class Residual(nn.Module):
    """x + two 3×3 convolutions of x (He et al. 2016), without activation after the sum, as in transformer blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.added = nn.Sequential(*_convolution(width, width, 3, 1), nn.ReLU(), *_convolution(width, width, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        return x + self.added(x)


def _convolution(narrow: int, wide: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A convolution that is centred on its output's cell, and its norm."""
    return nn.Conv2d(narrow, wide, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(wide)
