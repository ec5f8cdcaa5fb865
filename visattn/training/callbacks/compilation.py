"""Training with `torch.compile`."""

from collections.abc import Sequence

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from visattn.errors import InputError


class Compilation(Callback):
    """Compiles parts of the model at the start of training.

    They are compiled in place, so checkpoints are the same as without compilation. Compiling takes a minute or more,
    then every step is faster; see docs/performance.md for measurements. A captioner's decoder is a loop that is
    unrolled again for every caption length.

    Args:
        parts: attributes of the LightningModule, such as "model" of a classifier or "decoder" of a captioner.
        backend: see `torch.compile`; "inductor" needs a C++ compiler on a CPU.
        mode: see `torch.compile`.

    Raises:
        InputError: if the module has no such part.
    """

    def __init__(self, parts: Sequence[str] = ("model",), backend: str = "inductor", mode: str = "default") -> None:
        self.parts, self.backend, self.mode = tuple(parts), backend, mode

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
