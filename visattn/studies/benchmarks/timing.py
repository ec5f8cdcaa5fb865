"""Interleaved timing, so that other load on the machine affects all alternatives alike."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Run = Callable[[], Any]


class Spread(NamedTuple):
    """What several rounds gave."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Spread":
        """The spread of some numbers, at least one."""
        numbers = list(numbers)
        return cls(statistics.median(numbers), min(numbers), max(numbers))

    def times(self, factor: float) -> "Spread":
        """All of it multiplied by what is more than 0."""
        return Spread(*(factor * number for number in self))

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}}–{self.most:{form}})"


class Times(NamedTuple):
    """Seconds that each run took, round by round; all runs have as many rounds.

    Attributes:
        seconds: by the run's name.
    """

    seconds: dict[str, list[float]]

    def spread(self, name: str) -> Spread:
        """Seconds of a run."""
        return Spread.of(self.seconds[name])

    def rate(self, name: str, work: float) -> Spread:
        """What a run did in a second, where it did so much `work`, such as images, in all."""
        return Spread.of(work / seconds for seconds in self.seconds[name])

    def ratio(self, name: str, base: str) -> Spread:
        """Seconds of a run in those of another of the same round: below 1 it is the faster one."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return Spread.of(own / other for own, other in pairs)

    def fastest(self, names: Iterable[str]) -> str:
        """The run of those named whose median is least."""
        return min(names, key=lambda name: self.spread(name).median)


def nothing() -> None:
    """What there is to wait for on a CPU."""


def take_turns(
    runs: Mapping[str, Run],
    rounds: int,
    wait: Callable[[], None] = nothing,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time runs in rounds in which each has its turn; one round before warms up.

    Each round begins with the next run, so that none is always the one after the same other.

    Args:
        runs: by name.
        rounds: that are timed, at least 1.
        wait: returns once all that was begun is done; called before each look at the clock.
        clock: seconds.
    """
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wait()
            start = clock()
            runs[name]()
            wait()
            if turn:
                seconds[name].append(clock() - start)
    return Times(seconds)
