"""Number of multiplications of a run, and the rate at which this machine performs them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from visattn.fast.linear import linear
from visattn.studies.benchmarks.setting import Setting
from visattn.studies.benchmarks.timing import Run, Spread, Times

PRODUCT = "one large product"


def count(run: Run) -> int:
    """Floating-point operations of a run's matrix products, backward ones too, in any precision; x y + z is two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


class Product(NamedTuple):
    """A product of two square matrices in the setting's precision: the rate that all else is held against.

    Attributes:
        run: what is timed, beside the runs that it is compared with.
        flops: of it.
    """

    run: Callable[[], torch.Tensor]
    flops: int

    @classmethod
    def of(cls, setting: Setting, side: int) -> "Product":
        """Of matrices with so many rows."""
        dtype = torch.float32 if setting.precision == "32" else torch.bfloat16
        one, other = (setting.random(side, side, seed=seed).to(dtype) for seed in (0, 1))
        return cls(torch.inference_mode()(lambda: linear(one, other)), 2 * side**3)

    def share(self, times: Times, name: str, flops: int) -> Spread:
        """Of a run's time, how much its products would take at the rate of this one, timed as `PRODUCT` beside it."""
        return times.ratio(PRODUCT, name).times(flops / self.flops)
