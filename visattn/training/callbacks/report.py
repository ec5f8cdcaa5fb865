"""Base of the callbacks that write a report at the end of an evaluation."""

from pathlib import Path
from typing import ClassVar

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure

from visattn.files import write_json
from visattn.overlay import save_figure


class EvaluationReport(Callback):
    """Writes `<stem>_<split>.json` and `.png` at the end of `visattn test` and `visattn validate`."""

    stem: ClassVar[str]
    title: ClassVar[str]  # of what is written, for the terminal

    def __init__(self, directory: str = "runs") -> None:
        self.directory = Path(directory)

    def report(self, trainer: Trainer, module: LightningModule, split: str) -> tuple[dict, Figure] | None:
        """Numbers and figure of the evaluation of a split; None if the model has none."""
        raise NotImplementedError

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":  # not the validation within a training
            self._write(trainer, pl_module, "val")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        if not trainer.is_global_zero or (found := self.report(trainer, module, split)) is None:
            return
        numbers, figure = found
        stem = self.directory / f"{self.stem}_{split}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_json(stem.with_suffix(".json"), numbers)
        save_figure(figure, stem.with_suffix(".png"))
        print(f"{self.title}: {stem}.json, {stem}.png")
