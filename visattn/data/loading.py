"""Loading of whole batches, each a function of (seed, epoch, number) only.

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

from visattn.errors import InputError
from visattn.images import Fit

Split = Literal["train", "val", "test"]
Batch = TypeVar("Batch")


class BatchName(NamedTuple):
    """Which training batch: the number `batch` of `epoch`, and of it the share of process `rank` among `world`."""

    epoch: int
    batch: int
    rank: int = 0
    world: int = 1

    def generator(self, seed: int) -> torch.Generator:
        """A generator of this batch's own, for its augmentation; different for every name and every `seed`."""
        state = np.random.SeedSequence([seed, *self]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class TrainingBatches(Dataset, ABC, Generic[Batch]):
    """A training split as batches that are asked for by name.

    Args:
        count: how many items an epoch shows; each exactly once.
        batch_size: items of a batch, for one process. Several processes share batches of `batch_size` × their number,
            so that 2 processes of 4 train on the batches of 1 process of 8.
        seed: of the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self._planned: tuple[Any, list[np.ndarray]] = (None, [])

    @abstractmethod
    def make(self, items: np.ndarray, name: BatchName) -> Batch:
        """The batch of these items, by number."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All items, by number, in the order in which they are cut into batches."""
        return rng.permutation(self.count)

    def plan(self, epoch: int, world: int = 1) -> list[np.ndarray]:
        """The items of every batch of an epoch, over all processes: cut from `order`, then shuffled as batches."""
        if self._planned[0] != (epoch, world):
            rng = np.random.default_rng([self.seed, epoch])
            size = self.batch_size * world
            order = self.order(rng)
            batches = [order[i : i + size] for i in range(0, self.count, size)]
            self._planned = (epoch, world), [batches[i] for i in rng.permutation(len(batches))]
        return self._planned[1]

    def share(self, items: np.ndarray, rank: int, world: int) -> np.ndarray:
        """The items of a batch that are one process's."""
        return items[rank::world]

    def batches(self, world: int = 1) -> int:
        """How many batches an epoch has."""
        return -(-self.count // (self.batch_size * world))

    def __len__(self) -> int:
        return self.batches()

    def __getitem__(self, name: BatchName | int) -> Batch:
        # A plain number comes from `Trainer(overfit_batches=…)`, which puts its own sampler here.
        name = BatchName(0, name) if isinstance(name, int) else name
        items = self.plan(name.epoch, name.world)[name.batch]
        if len(items) < name.world:  # every process needs something: an epoch's last few items are then seen twice
            items = np.resize(items, name.world)
        return self.make(self.share(items, name.rank, name.world), name)


class EpochSampler(DistributedSampler):
    """The names of an epoch's batches, for one process.

    It is a `DistributedSampler` so that Lightning leaves the sharding to it, and stands as the loader's `sampler`
    because Lightning 2.6 calls `set_epoch` there and not on a batch sampler.

    Args:
        dataset: the batches.
        rank: of this process.
        world: the number of processes.
    """

    def __init__(self, dataset: TrainingBatches, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=False)
        self.start = 0  # the first batch of the next pass; BatchLoader moves it when a run is resumed

    def __len__(self) -> int:
        return self.dataset.batches(self.num_replicas)

    def __iter__(self) -> Iterator[BatchName]:
        for batch in range(self.start, len(self)):
            yield BatchName(self.epoch, batch, self.rank, self.num_replicas)


class BatchLoader(DataLoader):
    """A loader that, after a checkpoint in the middle of an epoch, continues behind the last batch trained on.

    Lightning saves and restores the state of any loader that has these two methods.
    """

    _delivered = 0
    _resume: tuple[int, int] | None = None  # (epoch, batches of it already seen)

    def __iter__(self) -> Iterator:
        epoch = getattr(self.sampler, "epoch", 0)
        start = self._resume[1] if self._resume and self._resume[0] == epoch else 0
        self._resume = None
        self._delivered = self.sampler.start = start
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches have been handed out, and what decides which these were."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "delivered": self._delivered, **self.choices()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where that state stopped, if it is a pass of the same epoch.

        Raises:
            InputError: if that is in the middle of an epoch whose batches were others.
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
        """What decides which the batches of an epoch are."""
        batches, world = self.dataset, getattr(self.sampler, "num_replicas", 1)
        return {"batches": batches.batches(world), "batch_size": batches.batch_size * world, "seed": batches.seed}


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """A scheduler tells all processes of a run to stop; the training process still needs this one for its step.

    So only SIGTERM of the parent itself ends a worker, as it does at the end of the program.
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
        batch_size: items of a training batch, for one process.
        eval_batch_size: images of an evaluation batch.
        workers: processes that load; 0 loads in the training process itself.
        seed: of the order, the augmentation and what is held out.

    Attributes:
        output_names: names of the model's outputs: the vocabulary, or the classes.
        tokens: unit of the captions, where there are any: "words", "characters", or the JSON of a tokenizer.
        image_size: (h, w) of the images in a batch, in pixels.
        fit: how a picture becomes an image of that size.

    Raises:
        InputError: if one of these makes no sense.
    """

    output_names: list[str]
    tokens: str = "words"
    image_size: tuple[int, int]
    fit: Fit = "crop"

    def __init__(self, batch_size: int, eval_batch_size: int, workers: int, seed: int) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("workers", workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.seed = seed

    def training_loader(self, batches: TrainingBatches) -> DataLoader:
        """Named batches, shuffled as a function of (seed, epoch), shared among the trainer's processes."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(batches, rank, world)
        return BatchLoader(batches, sampler=sampler, batch_size=None, **self._loader_options())

    def evaluation_loader(self, dataset: Dataset) -> DataLoader:
        """`eval_batch_size` images at a time, in their order; the data set's `__getitems__` makes the batch."""
        return DataLoader(dataset, batch_size=self.eval_batch_size, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "worker_init_fn": _leave_signals_to_the_parent,
            "collate_fn": _as_is,
            # Pinning costs time unless a GPU fetches from it.
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Every pass draws a seed for its workers: from here, so that it never disturbs the global random state.
            "generator": torch.Generator().manual_seed(self.seed),
        }


class EvaluationImages(Dataset, ABC, Generic[Batch]):
    """A split as images in a fixed order, fetched a batch at a time.

    Args:
        count: how many images.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    @abstractmethod
    def __getitems__(self, images: Sequence[int]) -> Batch:
        """The batch of these images, by number."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, image: int) -> Batch:
        return self.__getitems__([image])
