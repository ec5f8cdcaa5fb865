"""Lightning's Trainer, extended by `precision: auto`."""

from typing import Any, Literal

import lightning
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT

from visattn.errors import InputError
from visattn.precision import resolved, slowness


class Trainer(lightning.Trainer):
    """Lightning's Trainer, with a precision that can depend on the hardware.

    Args:
        precision: "auto" is bf16-mixed on devices with bfloat16 arithmetic (CUDA GPUs from Ampere on, CPUs with AVX-512
            BF16, AMX or ARM's BF16), otherwise 32-true; other values are Lightning's, and null is 32-true.

    Attributes:
        said: a line with the precision of the run and the reason.
        slow: a warning if that is very slow, or None.
    """

    def __init__(self, *args: Any, precision: Literal["auto"] | _PRECISION_INPUT | None = None, **kwargs: Any) -> None:
        try:
            super().__init__(*args, precision=None if precision == "auto" else precision, **kwargs)
        except (ImportError, ValueError) as error:  # incompatible options, or a missing package
            raise InputError(" ".join(str(error).split())) from error
        connector = self._accelerator_connector
        devices = getattr(self.strategy, "parallel_devices", None) or [self.strategy.root_device]
        if getattr(self.strategy, "_start_method", None) == "fork" and devices[0].type == "cuda":
            devices = []  # a process that has initialised a GPU cannot fork others that use it
        if precision != "auto" or connector._precision_plugin_flag is not None:
            self.said = f"precision: {self.precision}, {'the default' if precision is None else 'as requested'}"
        elif devices:
            connector._precision_flag, reason = resolved(devices)
            # Lightning chooses the implementation by the strategy.
            connector.precision_plugin = self.strategy.precision_plugin = connector._check_and_init_precision()
            self.said = f"precision: {self.precision}, since {reason}"
        else:
            self.said = f"precision: {self.precision}, since GPUs cannot be queried before processes are forked"
        self.slow = next(filter(None, (slowness(str(self.precision), device) for device in devices)), None)
