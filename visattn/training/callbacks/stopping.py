"""Write when a glimpse model stops, and what that costs."""

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure

from visattn.figures import StoppingLine, stopping_sheet
from visattn.metrics.stopping import StoppingCurve, stopping_curve
from visattn.training.callbacks.report import EvaluationReport
from visattn.training.glimpses import GlimpseClassifier


class StoppingReport(EvaluationReport):
    """Writes accuracy against the mean number of glimpses at the end of `visattn test` or `visattn validate`.

    For models that learn to stop (`stop: true`). `stopping_<split>.json` has where the model stops, and the curves of
    three rules: a fixed number of glimpses, a threshold of the learned probability of stopping, and a threshold of the
    probability of the likeliest class, which needs no learning. `stopping_<split>.png` draws them.

    Args:
        directory: output folder; the command line sets it to `--output`.
    """

    stem = title = "stopping"

    def report(self, trainer: Trainer, module: LightningModule, split: str) -> tuple[dict, Figure] | None:
        if not isinstance(module, GlimpseClassifier) or module.model.stop is None:
            return None
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
        lines = [
            StoppingLine("a fixed number of glimpses", *curves["fixed"], control=True),
            StoppingLine("learned stopping; diamond: where the model stops by itself", *curves["learned"], chosen),
            StoppingLine("a threshold of the likeliest class's probability", *curves["confidence"]),
        ]
        note = f"{len(scores)} images of the {split} split; a glimpse costs {module.loss.price:g}."
        return report, stopping_sheet(lines, title="When to stop", note=note)
