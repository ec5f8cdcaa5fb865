"""`visattn fit|validate|test|predict --config configs/….yaml`: LightningCLI, and a sentence for what went wrong."""

import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import lightning
from jsonargparse import ActionConfigFile
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from visattn.callbacks import AttentionHealth, ExposureReport, PredictionWriter, Throughput
from visattn.captioner import Captioner
from visattn.checkpoints import start_from
from visattn.errors import InputError
from visattn.features import FeatureCache
from visattn.program import program


class Parser(LightningArgumentParser):
    """jsonargparse lists every type that an option is not; this says what is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `InputError` of one sentence."""
        unknown = re.search(
            r"(?:unrecognized arguments: (?:--)?|does not accept option ')([\w.-]+)|Option '([\w.-]+)' is not accepted",
            message,
        )
        if unknown:
            message = (
                f"there is no option or configuration key '{unknown[1] or unknown[2]}'; 'visattn fit --help' lists them"
            )
        else:
            message = " ".join(message.split())
            message = message if len(message) < 400 else message[:400] + " …"
        raise InputError(message) from ex


class CLI(LightningCLI):
    """The models' and the data's constructors are the options; data tells the model what its outputs and inputs are."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = Parser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ActionConfigFile, help="a configuration in YAML, such as configs/*"
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--output", default="runs/visattn", help="folder of this run's checkpoints, logs, predictions"
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.filename": "best", "checkpoint.enable_version_counter": False}
        )
        parser.link_arguments("output", "checkpoint.dirpath")
        parser.add_argument(
            "--features",
            default="none",
            help="folder in which a captioner with a frozen encoder keeps its annotation vectors, computed once; "
            "'none' encodes the images anew in every epoch",
        )
        parser.add_argument(
            "--start_from",
            default="none",
            help="a checkpoint whose weights 'visattn fit' begins with, as another regime or attention does; "
            "--ckpt_path continues a run instead, with its optimiser",
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.link_arguments("output", "predictions.directory")
        parser.add_lightning_class_args(ExposureReport, "exposure")
        parser.link_arguments("output", "exposure.directory")
        for name in ("output_names", "image_size", "fit"):
            parser.link_arguments("data", f"model.init_args.{name}", _attribute(name), apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """What was trained is the checkpoint's to say, as Lightning has it; how captions are searched is the user's.

        Where the user does not say, it is the checkpoint's too: an option that is as by default was not given.
        """
        parameters = inspect.signature(Captioner).parameters
        options = {
            f"{self.config.subcommand}.model.init_args.{name}": parameters[name].default
            for name in ("search", "no_repeat", "max_length")
        }
        asked = {o: self.config[o] for o, value in options.items() if o in self.config and self.config[o] != value}
        super()._parse_ckpt_path()
        for option, value in asked.items():
            self.config[option] = value

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        output = Path(config.output)
        if self.subcommand == "fit" and not config.ckpt_path and (output / "last.ckpt").exists():
            raise InputError(
                f"{output} already holds a run: choose another --output, or continue it with "
                f"--ckpt_path {output}/last.ckpt"
            )
        if self.subcommand != "fit" and config.start_from != "none" and not config.ckpt_path:
            raise InputError(f"--start_from is for 'visattn fit'; give 'visattn {self.subcommand}' a --ckpt_path")
        if config.get("ckpt_path") and not str(config.ckpt_path).isalpha() and not Path(config.ckpt_path).is_file():
            raise InputError(f"there is no checkpoint {config.ckpt_path} (option --ckpt_path)")

    def before_fit(self) -> None:
        """Lightning's hook, when all is there and nothing has begun."""
        checkpoint = self._get(self.config, "start_from")
        if checkpoint != "none" and not self._get(self.config, "ckpt_path"):  # a run that goes on has begun
            start_from(checkpoint, self.model)

    def instantiate_trainer(self, **kwargs: object) -> object:
        if (features := self._get(self.config_init, "features")) != "none":
            own = self._get(self.config_init, "trainer.callbacks") or []
            kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), FeatureCache(features)]
        if self._get(self.config_init, "trainer.logger") is None:
            kwargs["logger"] = CSVLogger(self._get(self.config_init, "output"), name="logs")
        return super().instantiate_trainer(**kwargs)


def _attribute(name: str) -> Callable[[LightningDataModule], object]:
    def get(data: LightningDataModule) -> object:
        return getattr(data, name)

    return get


# What Lightning and PyTorch say of their own inner life, or of what is meant to be so here.
_NOISE = (
    r"LightningCLI's args parameter is intended to run from within Python",  # it is: by the demo and the tests
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with PyTorch 2.15
    r".*Found \d+ module\(s\) in eval mode",  # frozen stages of an encoder
    r".*does not have many workers",  # data from memory is faster without
    r".*Checkpoint directory .* exists and is not empty",  # `before_instantiate_classes` has looked
    r".*could not find the monitored key",  # stopped before the first validation
    r".*Couldn't infer the batch indices fetched",  # predictions go by the images' ids
    r".*The dirpath has changed from",  # a checkpoint is validated with another --output
    r".*Using `DistributedSampler` with the dataloaders",  # images that it repeats are counted once
)


def run_cli(args: ArgsType = None) -> CLI:
    """Run one subcommand, as the command line does, and hand back what it built.

    Args:
        args: the words of the command line after the program's name; None takes those of this process.

    Raises:
        InputError: where something that the user gave cannot be used.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    try:
        return CLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            parser_kwargs={"prog": "visattn"},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "callbacks": [LearningRateMonitor("step"), Throughput(), AttentionHealth()],
                "log_every_n_steps": 20,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
            },
        )
    except ValueError as error:  # jsonargparse wraps what goes wrong while it asks the data for the vocabulary
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


@program
def main(args: ArgsType = None) -> None:
    """The program: its exit status is 0 when all went well, 2 after a sentence that says what the user can mend."""
    run_cli(args)


if __name__ == "__main__":
    sys.exit(main())
