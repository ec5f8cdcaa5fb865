"""The two kinds of batches that models receive."""

from typing import NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """Images to classify.

    Attributes:
        images: (B, 3, H, W) uint8 in [0, 255]; models normalise them on their own device.
        labels: (B,) int64.
        ids: B names of the images.
    """

    images: Tensor
    labels: Tensor
    ids: list[str]


class CaptionBatch(NamedTuple):
    """Images with their captions. An image stands once, however many of its captions are in the batch.

    Exactly one of `images` and `features` is given.

    Attributes:
        images: (N, 3, H, W) uint8 in [0, 255]; the encoder normalises them on its own device.
        features: (N, h, w, D) annotation vectors that were computed before, instead of the images.
        owner: (B,) int64, the row of the image to which each caption belongs.
        tokens: (B, T) int64: START, the words, END, then PAD.
        ids: N names of the images.
        regions: (B, T - 1, h w) where each word after START is: β of Liu et al. 2017, which sums to 1 over the places,
            or 0 everywhere where that is not known. None if attention is not supervised.
    """

    images: Tensor | None
    features: Tensor | None
    owner: Tensor
    tokens: Tensor
    ids: list[str]
    regions: Tensor | None = None
