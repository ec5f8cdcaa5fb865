"""Loading of batches, each a function of (seed, epoch, number) only.

A resumed run must see the same data as an uninterrupted one. So neither order nor augmentation depends on a global
random state, the number of workers or the position of an iterator: the sampler returns the *name* of a batch, from
which the data set can construct the batch.
"""

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from visattn.errors import InputError, require_number
from visattn.images import Fit

Split = Literal["train", "val", "test"]
STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}  # of random numbers, in the seeds of generated images
Batch = TypeVar("Batch")


class BatchName(NamedTuple):
    """The name of a training batch: number `batch` of `epoch`, the share of process `rank` of `world`."""

    epoch: int
    batch: int
    rank: int = 0
    world: int = 1

    def generator(self, seed: int) -> torch.Generator:
        """A generator for the batch's augmentation, different for every name and `seed`."""
        state = np.random.SeedSequence([seed, *self]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class TrainingBatches(Dataset, ABC, Generic[Batch]):
    """A training split as batches that are requested by name.

    Args:
        count: items of an epoch; each occurs once.
        batch_size: items of a batch, per process. Several processes share batches of `batch_size` times their number,
            so that 2 processes with 4 train on the same batches as 1 process with 8.
        seed: of the order.

    Attributes:
        options: other numbers that determine the batches of an epoch, by name.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.options: dict[str, int] = {}
        self._planned: tuple[Any, list[np.ndarray]] = (None, [])

    @abstractmethod
    def make(self, items: np.ndarray, name: BatchName) -> Batch:
        """The batch of these items, by index."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All items, by index, in the order in which they are split into batches."""
        return rng.permutation(self.count)

    def plan(self, epoch: int, world: int = 1) -> list[np.ndarray]:
        """The items of each batch of an epoch, over all processes: `order` split into batches, and these shuffled."""
        if self._planned[0] != (epoch, world):
            rng = np.random.default_rng([self.seed, epoch])
            size = self.batch_size * world
            order = self.order(rng)
            batches = [order[i : i + size] for i in range(0, self.count, size)]
            self._planned = (epoch, world), [batches[i] for i in rng.permutation(len(batches))]
        return self._planned[1]

    def share(self, items: np.ndarray, rank: int, world: int) -> np.ndarray:
        """One process's items of a batch."""
        return items[rank::world]

    def batches(self, world: int = 1) -> int:
        """The number of batches in an epoch."""
        return -(-self.count // (self.batch_size * world))

    def __len__(self) -> int:
        return self.batches()

    def __getitem__(self, name: BatchName | int) -> Batch:
        # `Trainer(overfit_batches=…)` uses its own sampler, which gives integers.
        name = BatchName(0, name) if isinstance(name, int) else name
        items = self.plan(name.epoch, name.world)[name.batch]
        if len(items) < name.world:  # every process needs an item, so the last few of an epoch are repeated
            items = np.resize(items, name.world)
        return self.make(self.share(items, name.rank, name.world), name)


class EpochSampler(DistributedSampler):
    """The names of an epoch's batches, for one process.

    It is a `DistributedSampler` so that Lightning does not replace it, and is the loader's `sampler`, not its batch
    sampler, because Lightning 2.6 calls `set_epoch` only there.

    Args:
        dataset: the batches.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, dataset: TrainingBatches, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=False)
        self.start = 0  # the first batch of the next pass; set by BatchLoader when a run is resumed

    def __len__(self) -> int:
        return self.dataset.batches(self.num_replicas)

    def __iter__(self) -> Iterator[BatchName]:
        for batch in range(self.start, len(self)):
            yield BatchName(self.epoch, batch, self.rank, self.num_replicas)


class BatchLoader(DataLoader):
    """A loader that resumes within an epoch, after the last trained batch.

    Lightning saves and restores the state of any loader that has these two methods.
    """

    _delivered = 0
    _resume: tuple[int, int] | None = None  # (epoch, batches already seen)

    def __iter__(self) -> Iterator:
        epoch = getattr(self.sampler, "epoch", 0)
        start = self._resume[1] if self._resume and self._resume[0] == epoch else 0
        self._resume = None
        self._delivered = self.sampler.start = start
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the number of batches delivered, and the values that determine them."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "delivered": self._delivered, **self.choices()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass, if it is of the same epoch, resume where the state stopped.

        Raises:
            InputError: if the state is within an epoch, and its batches would be different.
        """
        self._resume = state["epoch"], state["delivered"]
        for name, here in self.choices().items():
            there = state.get(name, here)
            if there != here and state["delivered"] < state["batches"]:
                raise InputError(
                    f"the checkpoint was saved within an epoch with {name} {there}, but this data has "
                    f"{here}; give the data the same options, or continue from the end of an epoch"
                )

    def choices(self) -> dict[str, int]:
        """The values that determine the batches of an epoch."""
        batches, world = self.dataset, getattr(self.sampler, "num_replicas", 1)
        own = {"batches": batches.batches(world), "batch_size": batches.batch_size * world, "seed": batches.seed}
        return own | batches.options


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """Make a worker end only on SIGTERM from its parent.

    A scheduler signals all processes of a run, but the training process still needs its workers to finish the step.
    """
    for number in (getattr(signal, "SIGUSR1", signal.SIGINT), signal.SIGINT):  # Windows has no SIGUSR1
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_sigterm_of, args=(os.getppid(),), daemon=True).start()


def _wait_for_sigterm_of(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


class BatchedData(LightningDataModule):
    """Base of captioned and classified data: checked sizes, the two kinds of loaders, and what the model needs.

    Args:
        batch_size: items of a training batch, per process.
        eval_batch_size: images of an evaluation batch.
        workers: loading processes; 0 loads in the training process.
        seed: of the order, the augmentation and the held-out images.

    Attributes:
        output_names: names of the model's outputs: the vocabulary, or the classes.
        tokens: tokenisation of captions, if any: "words", "characters", or the JSON of a tokenizer.
        image_size: (h, w) of the images in a batch, in pixels.
        fit: how images are resized; see `visattn.images.fit_image`.

    Raises:
        InputError: if an argument is out of its range.
    """

    output_names: list[str]
    tokens: str = "words"
    image_size: tuple[int, int]
    fit: Fit = "crop"

    def __init__(self, batch_size: int, eval_batch_size: int, workers: int, seed: int) -> None:
        super().__init__()
        require_number("batch_size", batch_size, least=1)
        require_number("eval_batch_size", eval_batch_size, least=1)
        require_number("workers", workers, least=0)
        require_number("seed", seed, least=0)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.seed = seed

    @property
    def process(self) -> tuple[int, int]:
        """The number of this process, and of all processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def training_loader(self, batches: TrainingBatches) -> DataLoader:
        """A loader of named batches, shuffled as a function of (seed, epoch), and shared between processes."""
        sampler = EpochSampler(batches, *self.process)
        return BatchLoader(batches, sampler=sampler, batch_size=None, **self._loader_options())

    def evaluation_loader(self, dataset: Dataset) -> DataLoader:
        """A loader of batches of `eval_batch_size` images, in order, made by the data set's `__getitems__`."""
        return DataLoader(dataset, batch_size=self.eval_batch_size, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "worker_init_fn": _leave_signals_to_the_parent,
            "collate_fn": _as_is,
            # Pinning is only useful with a GPU.
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # For the seed of the workers, so that it is not drawn from the global random state.
            "generator": torch.Generator().manual_seed(self.seed),
        }


class EvaluationImages(Dataset, ABC, Generic[Batch]):
    """A split as images in a fixed order, loaded batch by batch.

    Args:
        count: number of images.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    @abstractmethod
    def __getitems__(self, images: Sequence[int]) -> Batch:
        """The batch of these images, by index."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, image: int) -> Batch:
        return self.__getitems__([image])
