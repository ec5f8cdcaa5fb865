"""The configuration of a run, saved with the run."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback


class SavedConfiguration(SaveConfigCallback):
    """Writes `config.yaml` next to the logs if these are in the run's `output`, otherwise into `output`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        output, logs = Path(self.config.output), trainer.log_dir  # the latter is the same in all processes
        if not self.already_saved and trainer.is_global_zero:
            within = logs is not None and Path(logs).resolve().is_relative_to(output.resolve())
            folder = Path(logs) if within else output
            folder.mkdir(parents=True, exist_ok=True)
            path, number = folder / self.config_filename, 2
            while path.exists():  # of the resumed run, or the user's
                path, number = folder / f"{Path(self.config_filename).stem}-{number}.yaml", number + 1
            self.parser.save(self.config, path, skip_none=False, skip_validation=True)  # it was, when it was read
        self.already_saved = True
