"""The two kinds of batches that models receive."""

from typing import NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """Images to classify.

    Attributes:
        images: (B, 3, H, W) uint8 in [0, 255]; models normalise them on their own device.
        labels: (B,) int64.
        ids: names of the images.
    """

    images: Tensor
    labels: Tensor
    ids: list[str]


class CaptionBatch(NamedTuple):
    """Images with their captions. Each image occurs once, even if several of its captions are in the batch.

    Exactly one of `images` and `features` is given.

    Attributes:
        images: (N, 3, H, W) uint8 in [0, 255]; the encoder normalises them on its own device.
        features: (N, h, w, D) precomputed annotation vectors, instead of the images.
        owner: (B,) int64, the row of each caption's image.
        tokens: (B, T) int64: START, the words, END, then PAD.
        ids: names of the N images.
        regions: (B, T - 1, h w) the region of each word after START: β of Liu et al. 2017, which sums to 1 over the
            places, or 0 everywhere if unknown. None if attention is not supervised.
    """

    images: Tensor | None
    features: Tensor | None
    owner: Tensor
    tokens: Tensor
    ids: list[str]
    regions: Tensor | None = None
