"""MNIST (LeCun 1998), and its digits lost in a larger picture: translated and cluttered (Mnih 2014, section 4)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from visattn.data.classification import ClassificationData, stratified_split
from visattn.data.loading import STREAMS, Split
from visattn.errors import InputError, require_number

DIGIT, PIECE = 28, 8  # sides of a digit and of a piece of clutter, in pixels


class MNIST(ClassificationData):
    """Handwritten digits of 28×28 pixels, each at a random place of a larger black picture, if that is asked for.

    Pictures are made as they are needed: where a digit stands and what clutters it is a function of (seed, split,
    index) and, in training, of the epoch, so that every epoch shows other pictures. Grey becomes three equal channels.

    Args:
        root: folder where torchvision finds the data set or puts it (`MNIST/raw` in it).
        download: fetch it where it is not in `root`.
        side: of the picture in pixels; 28 is the digit alone, 60 and 100 are Mnih's.
        clutter: pieces of 8×8 pixels from other digits of the same split; Mnih has 4.
        batch_size: images of a training batch, for one process.
        eval_batch_size: images of an evaluation batch.
        padding: largest shift of training pictures, in pixels; see `RandomCropFlip`.
        val_fraction: share of each class of the training set to hold out, chosen as a function of `seed`.
        workers: processes that load; 0 loads in the training process itself.
        seed: of the order, the places, the clutter and what is held out.

    Attributes:
        mean: of the pixels of the digits, in [0, 1].
        std: their standard deviation.

    Raises:
        InputError: if an option is out of its range; and, when the images are first needed, if they are not to be had.
    """

    fit = "squash"
    mean, std = (0.1307,) * 3, (0.3081,) * 3

    def __init__(
        self,
        root: Path,
        download: bool = True,
        side: int = DIGIT,
        clutter: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        padding: int = 0,
        val_fraction: float = 0.1,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, padding, workers=workers, seed=seed)
        require_number("side", side, least=DIGIT, most=1024)
        require_number("clutter", clutter, least=0, most=100)
        require_number("val_fraction", val_fraction, least=0, below=1)
        self.root, self.download, self.clutter, self.val_fraction = Path(root), download, clutter, val_fraction
        self.image_size = side, side

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def prepare_data(self) -> None:
        """Fetch what is not there; one process of a machine does so."""
        if self.download:
            self._open(train=True, download=True)

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """The digits themselves, (N, 3, 28, 28) uint8, and their labels; `arrange` puts them into pictures."""
        images, labels = self._test if split == "test" else self._train_val[split]
        return images, labels

    def arrange(self, images: Tensor, items: Sequence[int], split: Split, epoch: int) -> Tensor:
        if self.image_size == (DIGIT, DIGIT) and not self.clutter:
            return images
        digits, side = self.tensors(split)[0], self.image_size[0]
        pictures = images.new_zeros(len(items), 3, side, side)
        for picture, digit, item in zip(pictures, images, items, strict=True):
            rng = np.random.default_rng([self.seed, STREAMS[split], epoch, int(item)])
            y, x = rng.integers(side - DIGIT + 1, size=2)
            picture[:, y : y + DIGIT, x : x + DIGIT] = digit
            for _ in range(self.clutter):
                other, (top, left) = rng.integers(len(digits)), rng.integers(DIGIT - PIECE + 1, size=2)
                piece = digits[other, :, top : top + PIECE, left : left + PIECE]
                y, x = rng.integers(side - PIECE + 1, size=2)
                place = picture[:, y : y + PIECE, x : x + PIECE]
                torch.maximum(place, piece, out=place)
        return pictures

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        return self._read(train=False)

    @cached_property
    def _train_val(self) -> dict[str, tuple[Tensor, Tensor]]:
        images, labels = self._read(train=True)
        parts = zip(("train", "val"), stratified_split(labels.numpy(), self.val_fraction, self.seed), strict=True)
        return {split: (images[rows], labels[rows]) for split, rows in parts}

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        data = self._open(train, download=False)
        return data.data[:, None].expand(-1, 3, -1, -1), data.targets.long()

    def _open(self, train: bool, download: bool) -> datasets.MNIST:
        try:
            return datasets.MNIST(self.root, train, download=download)
        except (RuntimeError, OSError) as error:
            if download:
                raise InputError(f"MNIST could not be downloaded to {self.root}: {error}") from error
            raise InputError(
                f"{self.root} does not contain MNIST (MNIST/raw); set root to its folder, or download to true"
            ) from error
