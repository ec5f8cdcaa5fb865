"""What `visattn predict` found, as a file."""

import json
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from visattn import processes
from visattn.files import write_text


class PredictionWriter(BasePredictionWriter):
    """Writes what `visattn predict` found to `predictions.json`, a list with an entry for each image, in their order.

    Args:
        directory: where; the command line fills in its `--output`.
    """

    def __init__(self, directory: str = "runs") -> None:
        super().__init__("epoch")
        self.path = Path(directory) / "predictions.json"

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: list, batch_indices: list
    ) -> None:
        shared = processes.gathered((batch_indices[0], predictions))  # each process's, in batches
        numbered = {
            number: entry
            for batches in shared
            for numbers, entries in zip(*batches, strict=True)
            for number, entry in zip(numbers, entries, strict=True)
        }
        if not trainer.is_global_zero:
            return
        entries = [numbered[number] for number in sorted(numbered)]
        write_text(self.path, json.dumps(entries, ensure_ascii=False, indent=1))
        print(f"{len(entries)} predictions in {self.path}")
