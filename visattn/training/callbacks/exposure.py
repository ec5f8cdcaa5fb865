"""Write an evaluation's exposure bias report to files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from visattn.figures import Exposure, exposure_sheet
from visattn.files import write_text
from visattn.overlay import save_figure
from visattn.training.captioner import Captioner


class ExposureReport(Callback):
    """Writes the exposure bias measured by `visattn test` or `visattn validate`, as numbers and as a figure.

    `exposure_<split>.json` has the scores of free-running captions and of teacher-forced ones, the numbers over all
    tokens, and those by position (see `visattn.metrics.exposure`); `exposure_<split>.png` draws these.

    Args:
        directory: output folder; the command line sets it to `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        self.directory = Path(directory)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":  # not the validation within a training
            self._write(trainer, pl_module, "val")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        if not isinstance(module, Captioner) or not trainer.is_global_zero:
            return
        scores = {
            name.removeprefix(f"{split}/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{split}/")
        }
        positions = module.evaluated.exposure.by_position()
        report = {
            "name": self.directory.resolve().name,
            "split": split,
            "regime": module.regime.signature or type(module.regime).__name__,
            "search": type(module.search).__name__,
            "scores": scores,
            "overall": module.evaluated.exposure.overall(),
            "positions": {name: part.tolist() for name, part in positions._asdict().items()},
        }
        stem = self.directory / f"exposure_{split}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_text(stem.with_suffix(".json"), json.dumps(report, indent=1))
        save_figure(exposure_sheet([exposure_of(report)]), stem.with_suffix(".png"))
        print(f"exposure bias: {stem}.json, {stem}.png")


def exposure_of(report: dict[str, Any]) -> Exposure:
    """The figure's data from an `exposure_<split>.json`."""
    positions, overall = report["positions"], report["overall"]
    parts = {name: np.array(positions[name], dtype=float) for name in Exposure._fields[2:]}
    note = f"gap {100 * overall['gap']:.1f} points · CIDEr-D {report['scores']['CIDEr-D']:.3f}"
    return Exposure(report["name"], note, **parts)
