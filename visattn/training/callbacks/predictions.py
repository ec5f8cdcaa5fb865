"""Write the results of `visattn predict` to a file."""

import itertools
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from visattn.files import write_json
from visattn.training import processes


class PredictionWriter(BasePredictionWriter):
    """Writes the results of `visattn predict` to `predictions.json`, a list with an entry for each image, in order.

    Args:
        directory: output folder; the command line sets it to `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        super().__init__("epoch")
        self.path = Path(directory) / "predictions.json"

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: list, batch_indices: list
    ) -> None:
        numbers = itertools.chain.from_iterable(batch_indices[0] if batch_indices else [])
        entries = itertools.chain.from_iterable(predictions)
        shared = processes.gathered((list(numbers), list(entries)))
        if not trainer.is_global_zero:
            return
        numbers, entries = (list(itertools.chain.from_iterable(part)) for part in zip(*shared, strict=True))
        if numbers:  # images of a stream have none, and are not repeated
            numbered = dict(zip(numbers, entries, strict=True))
            entries = [numbered[number] for number in sorted(numbered)]
        write_json(self.path, entries)
        print(f"{len(entries)} predictions in {self.path}")
