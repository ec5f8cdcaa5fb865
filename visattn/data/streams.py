"""Order of samples in shards: each is seen once per pass, for any number of processes and workers."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from visattn.data.loading import BatchName
from visattn.data.tars import RawSample, Shard, samples, webdataset
from visattn.errors import InputError


class Segment(NamedTuple):
    """Samples `start` to `stop` (exclusive) of a shard."""

    shard: int
    start: int
    stop: int


def segments(counts: list[int], start: int, stop: int, seed: int | None) -> list[Segment]:
    """The segments at positions `start` to `stop` when all shards are read repeatedly.

    Args:
        counts: number of samples in each shard.
        start: the first position; each pass has sum(counts) positions.
        stop: the position after the last.
        seed: of the order of the shards, which differs between passes; None keeps their order.
    """
    total, found = sum(counts), []
    for number in range(start // total, -(-stop // total)):
        order = range(len(counts)) if seed is None else np.random.default_rng([seed, number]).permutation(len(counts))
        at = number * total
        for shard in order:
            part = Segment(int(shard), max(start - at, 0), min(stop - at, counts[shard]))
            if part.start < part.stop:
                found.append(part)
            at += counts[shard]
    return found


class StreamedBatches(Dataset):
    """Batches by name, as in `TrainingBatches`, but read from a stream that stays open between batches.

    Batch i is made by worker i % workers, as in PyTorch's loader, and is the next one in that worker's range. If
    another batch is requested, the worker restarts its range and skips.

    Args:
        shards: the tar files, or commands that write them.
        counts: number of samples in each.
        size: samples of an epoch, over all processes.
        batch_size: samples of a batch, per process.
        make: makes a batch of samples.
        seed: of the order; None keeps the order of the shards, in every epoch.
        window: samples within which a worker shuffles, if there is a seed.
    """

    def __init__(
        self,
        shards: list[Shard],
        counts: list[int],
        size: int,
        batch_size: int,
        make: Callable[[list[RawSample]], Any],
        seed: int | None,
        window: int,
    ) -> None:
        self.shards, self.counts, self.size, self.batch_size = shards, counts, size, batch_size
        self.make, self.seed, self.window = make, seed, window
        self.options: dict[str, int] = {}  # as of `TrainingBatches`
        self._open: tuple[BatchName | None, Iterator[list[RawSample]]] = (None, iter(()))

    def batches(self, world: int = 1) -> int:
        """The number of batches in an epoch, per process."""
        return math.ceil(math.ceil(self.size / world) / self.batch_size)

    def __len__(self) -> int:
        return self.batches()

    def __getitem__(self, name: BatchName | int) -> Any:
        name = BatchName(0, name) if isinstance(name, int) else name
        expected, stream = self._open
        if name != expected:
            stream = self._stream(name)
        batch = next(stream)
        self._open = name._replace(batch=name.batch + _workers()), stream
        return self.make(batch)

    def stretch(self, name: BatchName, workers: int) -> tuple[int, list[int]]:
        """The first position of a batch's worker in this epoch, and the sizes of its batches."""
        first = (0 if self.seed is None else name.epoch) * self.size
        start, stop = (first + self.size * rank // name.world for rank in (name.rank, name.rank + 1))
        count = self.batches(name.world)
        stop = max(stop, start + count)  # every batch needs at least one sample
        edges = [start + (stop - start) * i // count for i in range(count + 1)]
        mine = name.batch % workers
        before = sum(len(range(worker, count, workers)) for worker in range(mine))
        own = edges[before : before + len(range(mine, count, workers)) + 1]
        return own[0], [b - a for a, b in itertools.pairwise(own)]

    def _stream(self, name: BatchName) -> Iterator[list[RawSample]]:
        """The undecoded samples of this batch and of the worker's later batches."""
        workers = _workers()
        start, sizes = self.stretch(name, workers)
        stream = self._read(segments(self.counts, start, start + sum(sizes), self.seed))
        if self.seed is not None:
            order = random.Random(f"{self.seed} {name.epoch} {name.rank} {name.batch % workers}")
            stream = webdataset().filters.shuffle(self.window, rng=order)(stream)
        stream = iter(stream)
        for number, size in enumerate(sizes):
            batch = list(itertools.islice(stream, size))
            if number >= name.batch // workers:
                yield batch

    def _read(self, parts: Iterable[Segment]) -> Iterator[RawSample]:
        for part in parts:
            shard, number = self.shards[part.shard], part.start
            for sample in samples(shard, part.start, part.stop):
                yield sample
                number += 1
            if number < part.stop:
                raise InputError(f"{shard} has {number} samples, but had {self.counts[part.shard]} when the run began")


def _workers() -> int:
    """The number of loading processes, including this one."""
    info = get_worker_info()
    return 1 if info is None else info.num_workers
