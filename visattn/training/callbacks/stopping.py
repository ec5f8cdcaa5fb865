"""Write when a glimpse model stops, and what that costs."""

import json
from pathlib import Path

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from visattn.figures import StoppingLine, stopping_sheet
from visattn.files import write_text
from visattn.metrics.stopping import StoppingCurve, stopping_curve
from visattn.overlay import save_figure
from visattn.training.glimpses import GlimpseClassifier


class StoppingReport(Callback):
    """Writes accuracy against the mean number of glimpses at the end of `visattn test` or `visattn validate`.

    For models that learn to stop (`stop: true`). `stopping_<split>.json` has where the model stops, and the curves of
    three rules: a fixed number of glimpses, a threshold of the learned probability of stopping, and a threshold of the
    probability of the likeliest class, which needs no learning. `stopping_<split>.png` draws them.

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
        if not isinstance(module, GlimpseClassifier) or module.model.stop is None or not trainer.is_global_zero:
            return
        scores, count = list(module.evaluated.values()), module.model.glimpses
        right, stop, sure = (
            np.array([[image[f"{name}_{t}"] for t in range(1, count + 1)] for image in scores])
            for name in ("accuracy", "stop", "confidence")
        )
        curves = {
            "fixed": StoppingCurve(np.arange(1.0, count + 1), right.mean(axis=0)),
            "learned": stopping_curve(stop, right),
            "confidence": stopping_curve(sure, right),
        }
        chosen = tuple(float(np.mean([image[name] for image in scores])) for name in ("glimpses", "accuracy"))
        stem = self.directory / f"stopping_{split}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "split": split,
            "images": len(scores),
            "price": module.loss.price,
            "stopped": {"glimpses": chosen[0], "accuracy": chosen[1]},
            **{
                name: {part: values.tolist() for part, values in curve._asdict().items()}
                for name, curve in curves.items()
            },
        }
        write_text(stem.with_suffix(".json"), json.dumps(report, indent=1))
        lines = [
            StoppingLine("a fixed number of glimpses", *curves["fixed"], control=True),
            StoppingLine("learned stopping; diamond: where the model stops by itself", *curves["learned"], chosen),
            StoppingLine("a threshold of the likeliest class's probability", *curves["confidence"]),
        ]
        note = f"{len(scores)} images of the {split} split; a glimpse costs {module.loss.price:g}."
        save_figure(stopping_sheet(lines, title="When to stop", note=note), stem.with_suffix(".png"))
        print(f"stopping: {stem}.json, {stem}.png")
