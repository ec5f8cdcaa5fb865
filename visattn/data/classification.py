"""The base of labelled data sets of small images: the whole set in memory, batches by fancy indexing."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from visattn.data.augment import BatchTransform, RandomCropFlip, sent
from visattn.data.batch import ImageBatch
from visattn.data.loading import BatchedData, BatchName, EvaluationImages, Split, TrainingBatches
from visattn.errors import InputError, require_number


class ClassificationData(BatchedData, ABC):
    """Labelled images in batches of `ImageBatch`.

    Each training image is seen once per epoch; order and augmentation are functions of (seed, epoch), for any number of
    workers. Evaluation batches have the images unchanged, in order.

    Args:
        batch_size: images of a training batch, per process.
        eval_batch_size: images of an evaluation batch.
        padding: largest shift of training images, in pixels; see `RandomCropFlip`.
        flip: whether half of the training images are mirrored.
        augmentation: further transforms of training images, in order: of whole batches
            (`visattn.data.augment.BatchTransform`), or of single images (3, H, W) uint8, such as those of
            `torchvision.transforms.v2`; use `workers` if these are slow.
        workers: loading processes; 0 loads in the training process.
        seed: of the order, the augmentation and the held-out images.
        on_device: whether all images are kept on the device of the training, where batches are made and augmented;
            needs `workers` to be 0. Order and draws are those of the CPU.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        padding: int = 0,
        flip: bool = False,
        augmentation: list[BatchTransform | v2.Transform] | None = None,
        workers: int = 0,
        seed: int = 0,
        on_device: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed)
        if on_device and workers:
            raise InputError(f"workers is {workers}, but images on the device are loaded without; set workers to 0")
        require_number("padding", padding, least=0)
        self.padding = padding
        self.flip = flip
        self.augmentation = augmentation or []
        self.on_device = on_device

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The names of the labels, in order; available without reading data."""

    @property
    def output_names(self) -> list[str]:
        """Names of the model's outputs: the classes."""
        return self.class_names

    def check_size(self, size: tuple[int, int], option: str) -> None:
        """Check that the images have the size (h, w) of a model's input; `option` begins the message.

        Raises:
            InputError: if not.
        """
        if tuple(self.image_size) != tuple(size):
            own, its = ("{1}×{0}".format(*sides) for sides in (self.image_size, size))
            raise InputError(f"{option} has images of {own} pixels, but the model takes {its}")

    @abstractmethod
    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """All images of a split, (N, 3, H, W) uint8, and their labels, (N,) int64; cached."""

    def arrange(self, images: Tensor, items: Sequence[int], split: Split, epoch: int) -> Tensor:
        """Images of `tensors` as they are shown, before augmentation; here as they are.

        A data set whose pictures are made as they are needed overrides it.

        Args:
            images: (B, 3, H, W) uint8.
            items: their B places in the split.
            split: which it is.
            epoch: of training, from 0; 0 in evaluation, whose pictures are always the same.
        """
        return images

    def ids(self, split: Split) -> list[str]:
        """The names of a split's images."""
        return [f"{split}-{i:05d}" for i in range(len(self.tensors(split)[1]))]

    @property
    def device(self) -> torch.device:
        """Where batches are made: the device of the training with `on_device`, otherwise the CPU."""
        on_device = self.on_device and self.trainer is not None
        return self.trainer.strategy.root_device if on_device else torch.device("cpu")

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Lightning's hook, which would search every name of a batch for tensors, a millisecond for 500 names."""
        images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
        return ImageBatch(images, labels, batch.ids)

    def _loader_options(self) -> dict[str, Any]:
        options = super()._loader_options()
        return {**options, "pin_memory": options["pin_memory"] and not self.on_device}  # what is there needs no pinning

    def train_dataloader(self) -> DataLoader:
        """The training images, shuffled and augmented."""
        return self.training_loader(_Training(self))

    def val_dataloader(self) -> DataLoader:
        """The images of the validation split."""
        return self.evaluation_loader(_Images(self, "val"))

    def test_dataloader(self) -> DataLoader:
        """The images of the test split."""
        return self.evaluation_loader(_Images(self, "test"))

    def predict_dataloader(self) -> DataLoader:
        """The images of the test split."""
        return self.test_dataloader()


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the same share of every class.

    Args:
        labels: (N,) integers.
        fraction: of each class to hold out, rounded to whole images.
        seed: of the choice.

    Returns:
        The kept and the held-out indices, both ascending.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: round(fraction * len(members))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


class _Training(TrainingBatches[ImageBatch]):
    """The training split in shuffled, augmented batches."""

    def __init__(self, data: ClassificationData) -> None:
        self.images, self.labels = _nonempty(data, "train")
        self.ids = data.ids("train")
        if data.padding >= (side := min(data.image_size)):
            raise InputError(f"padding is {data.padding}; it must be less than the images' side, {side}")
        crop_flip = [RandomCropFlip(data.padding, data.flip)] if data.padding or data.flip else []
        self.augmentation = [*crop_flip, *data.augmentation]
        self.arrange = data.arrange
        super().__init__(len(self.labels), data.batch_size, data.seed)

    def make(self, items: np.ndarray, name: BatchName) -> ImageBatch:
        rows = sent(torch.from_numpy(items), self.images.device)
        images = self.arrange(self.images[rows], items, "train", name.epoch)
        generator = name.generator(self.seed)
        for several, transforms in groupby(self.augmentation, lambda each: isinstance(each, BatchTransform)):
            if several:
                for transform in transforms:
                    images = transform(images, generator)
            else:
                images = torch.stack(_transformed(images, list(transforms), generator))
        return ImageBatch(images, self.labels[rows], [self.ids[i] for i in items])


def _transformed(images: Tensor, transforms: list[v2.Transform], generator: torch.Generator) -> list[Tensor]:
    """Apply torchvision's transforms, which use the global random state, with this batch's generator."""
    out = []
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        for image in images:
            for transform in transforms:
                image = transform(image)
            out.append(image)
        generator.set_state(torch.get_rng_state())
    finally:
        torch.set_rng_state(before)
    return out


class _Images(EvaluationImages[ImageBatch]):
    """A split without shuffling or augmentation."""

    def __init__(self, data: ClassificationData, split: Split) -> None:
        self.images, self.labels = _nonempty(data, split)
        self.ids = data.ids(split)
        self.arrange, self.split = data.arrange, split
        super().__init__(len(self.labels))

    def __getitems__(self, images: Sequence[int]) -> ImageBatch:
        rows = sent(torch.as_tensor(images), self.images.device)
        shown = self.arrange(self.images[rows], images, self.split, 0)
        return ImageBatch(shown, self.labels[rows], [self.ids[i] for i in images])


def _nonempty(data: ClassificationData, split: Split) -> tuple[Tensor, Tensor]:
    images, labels = data.tensors(split)
    if not len(labels):
        what_to_do = "; check val_fraction" if split == "val" and hasattr(data, "val_fraction") else ""
        raise InputError(f"{type(data).__name__} has no images in its {split} split{what_to_do}")
    return images.to(data.device), labels.to(data.device)
