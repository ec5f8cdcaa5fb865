"""Training with `torch.compile`."""

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from visattn.errors import InputError


class Compilation(Callback):
    """Compiles parts of the model at the start of training.

    They are compiled in place, so checkpoints are the same as without compilation. Compiling takes a minute or more,
    then every step is faster; see docs/performance.md for measurements. A captioner's decoder is a loop that is
    unrolled again for every caption length.

    Args:
        parts: attributes of the LightningModule, such as "model" of a classifier or "decoder" of a captioner.
        backend: see `torch.compile`; "inductor" needs a C++ compiler on a CPU.
        mode: see `torch.compile`; "reduce-overhead" uses CUDA graphs.
        training_only: whether validation runs the uncompiled parts, which saves the compilation for it.

    Raises:
        InputError: if the module has no such part.
    """

    def __init__(
        self,
        parts: Sequence[str] = ("model",),
        backend: str = "inductor",
        mode: str = "default",
        training_only: bool = False,
    ) -> None:
        self.parts, self.backend, self.mode, self.training_only = tuple(parts), backend, mode, training_only
        self._paused: dict[nn.Module, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = dict(pl_module.named_children())
        for name in self.parts:
            if name not in known:
                raise InputError(
                    f"{type(pl_module).__name__} has no part '{name}' to compile (callback Compilation, option parts); "
                    f"it has {', '.join(known)}"
                )
            options = {"mode": self.mode} if self.backend == "inductor" else {}
            known[name].compile(backend=self.backend, **options)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training_only and trainer.state.fn == "fit":
            parts = [pl_module.get_submodule(name) for name in self.parts]
            self._paused = {part: part._compiled_call_impl for part in parts}
            for part in parts:
                part._compiled_call_impl = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for part, compiled in self._paused.items():
            part._compiled_call_impl = compiled
        self._paused = {}
