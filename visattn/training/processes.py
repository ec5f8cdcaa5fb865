"""Several processes that share a batch; with a single process these functions have no effect.

Averages over a batch must be averages over the whole batch. The mean of the processes' means differs, since their
shares have different numbers of words. So each process computes its *share* of the average: the sum over its part,
divided by the `mean` of the count over processes. The mean of the shares is then the total sum by the total count.
DistributedDataParallel averages gradients in the same way, so the gradient of such a loss is that of the whole batch.

These functions wait for the other processes: every process must call them equally often. They must not be used in
loops that end at different times in different processes, such as decoding.
"""

import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

T = TypeVar("T")


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """The index of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def total(x: Tensor) -> Tensor:
    """The sum of all processes' tensors, the same in each; without a gradient."""
    x = x.detach().clone()
    if world() > 1:
        distributed.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean of all processes' tensors, the same in each, in float32 at least; without a gradient."""
    return total(x).to(torch.promote_types(x.dtype, torch.float32)) / world()


def gathered(x: T) -> list[T]:
    """The objects of all processes, in the order of ranks. They are pickled, so keep them small."""
    out = [x] * world()
    if world() > 1:
        distributed.all_gather_object(out, x)
    return out


def once(compute: Callable[[], T]) -> T:
    """Compute something in the first process and share it; the others wait."""
    out = [compute() if rank() == 0 else None]
    if world() > 1:
        distributed.broadcast_object_list(out, src=0)
    return out[0]


def draw_apart() -> None:
    """Give each process different random numbers, in Python, NumPy and PyTorch.

    All start from one seed, so that their models are equal, and would otherwise also sample the same dropout, places
    and words. The first process keeps its random states; each other is seeded with a function of the common seed and
    its rank.
    """
    if rank() > 0:
        words = np.random.SeedSequence([torch.initial_seed(), rank()]).generate_state(3, np.uint32)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.manual_seed(int(words[2]))


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
