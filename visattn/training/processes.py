"""Several processes that share a batch; with a single process these functions have no effect.

What is averaged over a batch is averaged over all of it. A mean of the processes' own means is another number, since
shares have different numbers of words. So a number is written as *this process's share* of it, the sum over its own
part by `mean` of the count: the mean of the shares over the processes is then the sum over all by the count of all.
DistributedDataParallel takes that mean of gradients, so the gradient of a loss written so is that of the whole batch.

What is called here waits for the other processes: every process must come by, equally often. A loop that ends earlier
in one than in another, such as decoding, is no place for it.
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
    """The number of this process, from 0."""
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
    """What each process has, in the order of their ranks. It is pickled, so keep it small."""
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
    """Give each process random numbers of its own: Python's, NumPy's and PyTorch's.

    All start from one seed, so that their models begin alike, and would go on to draw the same dropout, places, words
    and coins. The first keeps the numbers that it would have alone; each other gets those of a seed that is a function
    of the common one and its rank.
    """
    if rank() > 0:
        words = np.random.SeedSequence([torch.initial_seed(), rank()]).generate_state(3, np.uint32)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.manual_seed(int(words[2]))


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
