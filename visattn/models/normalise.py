"""Normalisation of pixels, on the model's device so that the data stays uint8."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(pixel / 255 − mean) / std for each channel.

    Args:
        mean: of each channel, pixels in [0, 1].
        std: of each channel, pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)) -> None:
        super().__init__()
        # Not in the state dict, which is then that of the network alone.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 in [0, 255] to float32."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std
