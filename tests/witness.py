"""A training run that records its steps, and kills itself at a given step.

python tests/witness.py RECORD STEP WORDS…: `visattn WORDS…`, killed at the beginning of step STEP.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from visattn.cli import main
from visattn.training.captioner import Captioner
from visattn.training.classifier import Classifier
from visattn.training.glimpses import GlimpseClassifier

# Options of a training that says little and validates little.
QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--trainer.limit_val_batches=2",
]


@contextlib.contextmanager
def watched(record: Path, before: Callable[[int], None] = lambda step: None) -> Iterator[None]:
    """Write every step's number, images, loss (to the last bit) and learning rate to `record`.

    `before` is called with the number, at the beginning of each step.
    """
    originals = {kind: kind.training_step for kind in (Captioner, Classifier, GlimpseClassifier)}

    def wrap(original: Callable) -> Callable:
        def training_step(self, batch, index):
            before(self.global_step)
            loss = original(self, batch, index)
            with record.open("a") as file:
                rate = self.trainer.optimizers[0].param_groups[0]["lr"]
                entry = [self.global_step, list(batch.ids), loss.item().hex(), rate]
                file.write(json.dumps(entry) + "\n")
            return loss

        return training_step

    for kind, original in originals.items():
        kind.training_step = wrap(original)
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.training_step = original


def steps(record: Path) -> list[list]:
    """The records, in order."""
    return [json.loads(line) for line in record.read_text().splitlines()]


def be_killed(record: Path, fatal: int, words: list[str]) -> None:
    """Train until the beginning of step `fatal`."""
    with watched(record, lambda step: step == fatal and os.kill(os.getpid(), signal.SIGKILL)):
        sys.exit(main(words))


if __name__ == "__main__":
    be_killed(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
