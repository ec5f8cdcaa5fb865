"""Drawing in other processes, while the model runs in this one."""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self, TypeVar

from visattn.errors import InputError

T = TypeVar("T")

MOST = 8  # more processes draw faster than one model captions on a CPU
_EACH = 12  # with fewer pictures each, starting a process takes longer than it saves


def automatic_workers(pictures: int) -> int:
    """The number of processes worth starting to draw this many pictures; 0 is to draw them in this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 or pictures < 2 * _EACH else min(cores, pictures // _EACH, MOST)


class Workers:
    """Runs functions in other processes, and uses their results in this one, in the order of the calls.

    A context manager; on leaving it without an error, everything has been done. Processes are started anew rather than
    forked, since a copy of a process with PyTorch's threads can hang, so functions and arguments must be picklable.

    Args:
        count: processes; with 0 functions run at once, in this process.

    Raises:
        InputError: if `count` is negative.
    """

    def __init__(self, count: int) -> None:
        if count < 0:
            raise InputError(f"--workers is {count}; it must be at least 0 (0 draws in the main process)")
        self.count = count
        self._waiting: deque[tuple[Future[Any], Callable[[Any], None]]] = deque()
        self._done = 0
        self._pool = (
            ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin) if count else None
        )

    def run(self, function: Callable[..., T], *args: Any, then: Callable[[T], None]) -> None:
        """Call `then` with the result of `function(*args)`, here or later; errors are raised here or later, too."""
        if self._pool is None:
            then(function(*args))
            self._done += 1
            if self._done % 16 == 0:
                gc.collect()  # figures refer to themselves: left alone, Python lets hundreds of them pile up
            return
        while len(self._waiting) >= 2 * self.count:  # each holds a picture
            self._use()
        self._waiting.append((self._pool.submit(_collected, function, *args), then))

    def _use(self) -> None:
        future, then = self._waiting.popleft()
        try:
            result = future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a process that draws has died; if memory ran out, use fewer (--workers 1, or 0 for none)"
            ) from error
        then(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._use()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles it
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when NumPy is imported, with the first function
        os.environ[f"{library}_NUM_THREADS"] = "1"


def _collected(function: Callable[..., T], *args: Any) -> T:
    result = function(*args)
    gc.collect()
    gc.freeze()  # what is left are modules, so that the next collection takes no time
    return result
