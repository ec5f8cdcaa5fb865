"""MixUp and CutMix with draws for each image, as tensor operations on the whole batch."""

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F


class MixEach(nn.Module):
    """Mix each image with the one before it in the batch, by a method and a share of its own.

    torchvision's `MixUp` and `CutMix` draw one method and one share for a batch, so that a large batch has few
    different ones. Draws are from PyTorch's global generator on the CPU, and nothing waits for the images' device.

    Args:
        classes: number of classes.
        mixup: α of MixUp (Zhang 2017), which blends two images; 0 disables it.
        cutmix: α of CutMix (Yun 2019), which pastes a rectangle of another; 0 disables it.
        probability: that an image is mixed, by either method with the same probability if there are both.
    """

    def __init__(self, classes: int, mixup: float, cutmix: float, probability: float) -> None:
        super().__init__()
        self.classes, self.mixup, self.cutmix, self.probability = classes, mixup, cutmix, probability

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) to mixed images, and shares of the classes (B, classes)."""
        count, (height, width) = len(images), images.shape[-2:]
        mixed = torch.rand(count) < self.probability
        blended = mixed & (torch.rand(count) < (0.5 if self.cutmix else 1.0)) if self.mixup else torch.zeros_like(mixed)
        cut = mixed & ~blended
        share = torch.ones(count)  # of the image itself
        if self.mixup:
            share = torch.where(blended, Beta(self.mixup, self.mixup).sample((count,)), share)
        edges = torch.zeros(4, count)
        if self.cutmix:
            side = (1 - Beta(self.cutmix, self.cutmix).sample((count,))).sqrt() / 2
            y, x = (torch.rand(2, count) * torch.tensor([[height], [width]])).floor()
            up, along = (side * height).floor(), (side * width).floor()
            edges = cut * torch.stack(
                [
                    (y - up).clamp(min=0),
                    (y + up).clamp(max=height),
                    (x - along).clamp(min=0),
                    (x + along).clamp(max=width),
                ]
            )
            area = (edges[1] - edges[0]) * (edges[3] - edges[2])
            share = torch.where(cut, 1 - area / (height * width), share)
        drawn = torch.cat([share[None], blended[None].float(), edges]).to(images.device, non_blocking=True)
        top, bottom, left, right = drawn[2:].view(4, -1, 1, 1, 1)
        rows = torch.arange(height, device=images.device).view(-1, 1)
        columns = torch.arange(width, device=images.device)
        within = (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
        own = torch.where(within, 0.0, torch.where(drawn[1] > 0, drawn[0], 1.0).view(-1, 1, 1, 1)).to(images.dtype)
        wanted = F.one_hot(labels, self.classes).to(images.dtype)
        by = drawn[0, :, None].to(images.dtype)
        return images * own + images.roll(1, 0) * (1 - own), wanted * by + wanted.roll(1, 0) * (1 - by)
