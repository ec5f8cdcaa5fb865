"""Settings common to all runs of a benchmark: device, precision, rounds; and their description."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from visattn.devices import choose_device
from visattn.errors import require_number
from visattn.fast.allocator import freed_memory_is_kept
from visattn.fast.linear import onednn_is_taken
from visattn.precision import autocast, of_option
from visattn.studies.benchmarks.timing import Run, Times, nothing, take_turns


class Setting(NamedTuple):
    """Under which conditions everything is timed.

    Attributes:
        device: where.
        precision: "32", or "bf16" for bfloat16 by autocast, with weights in float32.
        rounds: of which the median counts.
    """

    device: torch.device
    precision: Literal["32", "bf16"]
    rounds: int

    @classmethod
    def of(cls, device: str, precision: str, rounds: int) -> "Setting":
        """From the words of a command line.

        Raises:
            InputError: if a word says nothing, or there is no such device.
        """
        require_number("--rounds", rounds, least=1)
        chosen = choose_device(device)
        return cls(chosen, of_option(precision, chosen), rounds)

    def autocast(self) -> AbstractContextManager:
        """The precision, while it is entered."""
        return autocast(self.precision, self.device)

    def time(
        self, runs: Mapping[str, Run], rounds: int | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> Times:
        """Time runs that take turns, each in the precision; see `take_turns`."""

        def within(run: Run) -> Run:
            def go() -> None:
                with self.autocast():
                    run()

            return go

        wait = torch.cuda.synchronize if self.device.type == "cuda" else nothing
        return take_turns({name: within(run) for name, run in runs.items()}, rounds or self.rounds, wait, clock)

    def random(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Normal numbers, the same on every device."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def conditions(self, *packages: str) -> dict[str, str]:
        """Conditions of the measurements; `packages` are those of the other implementations."""
        versions = [f"{name} {found}" for name in ("timm", *packages) if (found := _version(name))]
        return {
            "date": datetime.date.today().isoformat(),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else processor(),
            "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
            "precision": "float32" if self.precision == "32" else "bfloat16 by autocast, weights in float32",
            "memory": f"freed memory is {'' if freed_memory_is_kept() else 'not '}kept (visattn.fast.allocator)",
            "linear layers in float32": f"visattn's by {_linear(self.device)}; the peers' as PyTorch chooses",
            "rounds": f"median of {self.rounds} in which all took turns (least–most), after one that warmed up",
            "versions": ", ".join([f"Python {platform.python_version()}", f"PyTorch {torch.__version__}", *versions]),
        }


def _linear(device: torch.device) -> str:
    return "oneDNN (visattn.fast.linear)" if device.type == "cpu" and onednn_is_taken() else "PyTorch's choice"


def processor() -> str:
    """The CPU's name, as far as it says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
