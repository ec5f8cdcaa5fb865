"""Write an evaluation's exposure bias report to files."""

from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure

from visattn.figures import Exposure, exposure_sheet
from visattn.training.callbacks.report import EvaluationReport
from visattn.training.captioner import Captioner


class ExposureReport(EvaluationReport):
    """Writes the exposure bias measured by `visattn test` or `visattn validate`, as numbers and as a figure.

    `exposure_<split>.json` has the scores of free-running captions and of teacher-forced ones, the numbers over all
    tokens, and those by position (see `visattn.metrics.exposure`); `exposure_<split>.png` draws these.

    Args:
        directory: output folder; the command line sets it to `--output`.
    """

    stem, title = "exposure", "exposure bias"

    def report(self, trainer: Trainer, module: LightningModule, split: str) -> tuple[dict, Figure] | None:
        if not isinstance(module, Captioner):
            return None
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
        return report, exposure_sheet([exposure_of(report)])


def exposure_of(report: dict[str, Any]) -> Exposure:
    """The figure's data from an `exposure_<split>.json`."""
    positions, overall = report["positions"], report["overall"]
    parts = {name: np.array(positions[name], dtype=float) for name in Exposure._fields[2:]}
    note = f"gap {100 * overall['gap']:.1f} points · CIDEr-D {report['scores']['CIDEr-D']:.3f}"
    return Exposure(report["name"], note, **parts)
