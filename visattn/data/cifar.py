"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60 000 images of 32×32 pixels."""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from visattn.data.augment import BatchTransform
from visattn.data.classification import ClassificationData, stratified_split
from visattn.data.loading import Split
from visattn.data.parts import in_parts, read_parts
from visattn.errors import InputError, require_number


class CIFAR(ClassificationData):
    """Base of CIFAR-10 and CIFAR-100. Validation images are held out from the training set.

    Args:
        root: folder of torchvision's copy of the data set, or of its parts (`visattn.data.parts`).
        download: download the data set from the authors' site if it is not in `root`.
        batch_size: images of a training batch, per process.
        eval_batch_size: images of an evaluation batch.
        val_fraction: share of each training class to hold out, as a function of `seed`.
        padding: largest shift of training images, in pixels; see `RandomCropFlip`.
        flip: whether half of the training images are mirrored.
        augmentation: further transforms of training images, in order: of whole batches
            (`visattn.data.augment.BatchTransform`), or of single images (3, H, W) uint8, such as those of
            `torchvision.transforms.v2`; use `workers` if these are slow.
        workers: loading processes; 0 loads in the training process.
        seed: of the order, the augmentation and the held-out images.
        on_device: whether all images are kept on the device of the training, where batches are made and augmented;
            needs `workers` to be 0. Order and draws are those of the CPU.

    Attributes:
        counts: numbers of training and test images.
        mean: mean of each channel over the training set, in [0, 1], for normalisation.
        std: its standard deviation.

    Raises:
        InputError: if an option is invalid; or, at first use, if the images are missing or cannot be downloaded.
    """

    image_size = (32, 32)
    counts: ClassVar[tuple[int, int]] = (50_000, 10_000)
    source: ClassVar[type[datasets.CIFAR10]]
    names: ClassVar[str]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]

    def __init__(
        self,
        root: Path,
        download: bool = True,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_fraction: float = 0.1,
        padding: int = 4,
        flip: bool = True,
        augmentation: list[BatchTransform | v2.Transform] | None = None,
        workers: int = 0,
        seed: int = 0,
        on_device: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, padding, flip, augmentation, workers, seed, on_device)
        require_number("val_fraction", val_fraction, least=0, below=1)
        self.root = Path(root)
        self.download = download
        self.val_fraction = val_fraction

    @property
    def class_names(self) -> list[str]:
        return self.names.split()

    def prepare_data(self) -> None:
        """Download missing files; called in one process per machine."""
        if self.download and not in_parts(self.root):
            self._open(train=True, download=True)

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        images, labels, _ = self._test if split == "test" else self._train_val[split]
        return images, labels

    def ids(self, split: Split) -> list[str]:
        """Names of file ("train" or "test") and index; validation images come from the training file."""
        *_, rows = self._test if split == "test" else self._train_val[split]
        return [f"{'test' if split == 'test' else 'train'}-{row:05d}" for row in rows]

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor, np.ndarray]:
        images, labels = self._read(train=False)
        return torch.from_numpy(images), torch.from_numpy(labels), np.arange(len(labels))

    @cached_property
    def _train_val(self) -> dict[str, tuple[Tensor, Tensor, np.ndarray]]:
        images, labels = self._read(train=True)
        kept, held = stratified_split(labels, self.val_fraction, self.seed)
        rows = np.concatenate([kept, held])  # one copy, shared by both splits
        whole = torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]), rows
        n = len(kept)
        return {"train": tuple(part[:n] for part in whole), "val": tuple(part[n:] for part in whole)}

    def _read(self, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3, 32, 32) uint8 and (N,) int64, in torchvision's order."""
        if in_parts(self.root):
            return self._parts[0 if train else 1]
        data = self._open(train, download=False)
        return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.array(data.targets, dtype=np.int64)

    @cached_property
    def _parts(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return read_parts(self.root, self.counts, len(self.class_names))

    def _open(self, train: bool, download: bool) -> datasets.CIFAR10:
        try:
            return self.source(self.root, train, download=download)
        except (RuntimeError, OSError) as error:
            name = self.source.__name__
            if download:
                raise InputError(f"{name} could not be downloaded to {self.root}: {error}") from error
            raise InputError(
                f"{self.root} does not contain all of {name} ({self.source.base_folder}); set root to its folder, "
                "or download to true"
            ) from error


class CIFAR10(CIFAR):
    """CIFAR-10: 50 000 training and 10 000 test images of 10 classes; arguments as for `CIFAR`."""

    source = datasets.CIFAR10
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


class CIFAR100(CIFAR):
    """CIFAR-100: 50 000 training and 10 000 test images of 100 classes; arguments as for `CIFAR`."""

    source = datasets.CIFAR100
    names = (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
        "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
        "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
        "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
        "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    )
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
