"""LightningCLI for `visattn fit|validate|test|predict`, and a sentence for what went wrong."""

import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning
from jsonargparse import ActionConfigFile, Namespace
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from visattn.data.captions import CaptionData
from visattn.errors import InputError
from visattn.files import guarded, local_path, protect
from visattn.imports import import_classes, take_imports
from visattn.training.callbacks import (
    AttentionHealth,
    ExposureReport,
    FeatureCache,
    PredictionWriter,
    StopWhenNotFinite,
    Throughput,
)
from visattn.training.checkpoints import (
    WholeCheckpoints,
    differences,
    is_shipped,
    remove_unfinished,
    require_agreement,
    start_from,
    trained,
)
from visattn.training.runs import (
    LAST,
    LastCheckpoint,
    SavedConfiguration,
    Trainer,
    claimed,
    latest,
    protect_inputs,
    require_writable,
)
from visattn.training.runs.configurations import resolved

log = logging.getLogger(__name__)

OF_DATA = ("output_names", "image_size", "fit", "tokens")  # options of a model that are the data's to say
OF_DECODING = ("search", "no_repeat", "max_length")  # … that the user may choose anew for each use of a checkpoint
# … that nothing but a training looks at
OF_TRAINING = ("optimization", "regime", "label_smoothing", "mixup", "cutmix", "mix_probability")


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

    def __init__(self, *args: Any, called: str, **kwargs: Any) -> None:
        self._called = called
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:
        """The one that is called: the parser of each takes a third of a second to make."""
        known = LightningCLI.subcommands()
        return {self._called: known[self._called]} if self._called in known else known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = Parser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ActionConfigFile,
            help="a configuration: a YAML file, or the name of one that comes with visattn, such as shapes_captioner",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--output", default="runs/visattn", help="folder of this run's checkpoints, logs, predictions"
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.filename": "best", "checkpoint.enable_version_counter": False})
        parser.link_arguments("output", "checkpoint.dirpath")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.link_arguments("output", "last.directory")
        parser.add_argument(
            "--resume",
            type=Literal["none", "auto"],
            default="none",
            help="'auto': 'visattn fit' goes on with the run in --output from its last whole checkpoint, or begins it",
        )
        parser.add_argument(
            "--override_checkpoint",
            action="store_true",
            help="where an option stated here contradicts the checkpoint, take this one; without, it is an error",
        )
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
        for name in OF_DATA:
            parser.link_arguments("data", f"model.init_args.{name}", _attribute(name), apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self._args = args
        super().parse_arguments(parser, args)

    def _stated(self) -> Namespace:
        """What the user says of the subcommand, in files or in words, without the defaults."""
        args = sys.argv[1:] if self._args is None else self._args
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said before
            parse = self.parser.parse_args if isinstance(args, list) else self.parser.parse_object
            return parse(args, defaults=False)[self.config.subcommand]

    def _parse_ckpt_path(self) -> None:
        """What was trained is the checkpoint's to say; what is stated otherwise is an error, and never ignored.

        In Lightning's place, which trusts the file, and prefers it without a word.
        """
        subcommand, config = self.config.subcommand, self.config[self.config.subcommand]
        self._checkpoint: tuple[str, dict[str, Any]] | None = None
        config.ckpt_path = self._find_checkpoint(subcommand, config)
        if config.ckpt_path is None:
            return
        checkpoint, found, options = trained(config.ckpt_path)
        self._checkpoint = config.ckpt_path, checkpoint
        stated = self._stated().get("model")
        if stated is not None and stated.class_path != found:
            raise InputError(f"{config.ckpt_path} holds {found}, but the configuration has {stated.class_path}")
        own = config.model and config.model.clone()
        saved = {name: value for name, value in options.items() if name not in OF_DATA}
        model = {"class_path": found, "init_args": saved}
        config.model = None  # an option newer than the checkpoint had its default there, whatever is stated here
        try:
            self.config = self.parser.parse_object({subcommand: {"model": model}}, self.config)
        except InputError as error:
            raise InputError(f"{config.ckpt_path} does not fit this version of visattn: {error}") from error
        saved = self.config[subcommand].model.init_args.as_dict()
        for option, here, there in differences(stated.init_args.as_dict() if stated else {}, saved):
            if subcommand != "fit" and option.partition(".")[0] in OF_TRAINING:
                continue
            of = option.partition(".")[0]
            free = of in OF_DECODING or config.override_checkpoint
            free |= is_shipped(config.ckpt_path) and of not in options  # the loss: an exported model has none
            mend = "or give --override_checkpoint to use the value given here"
            if of == "optimization":  # Lightning puts back the optimiser as it was
                mend = "or begin another training with --start_from"
            if of == "optimization" or not free:
                raise InputError(
                    f"--model.init_args.{option} is {here!r} here and {there!r} in {config.ckpt_path}; leave it out, "
                    f"{mend}"
                )
            self.config[f"{subcommand}.model.init_args.{option}"] = own.init_args[option]

    def _find_checkpoint(self, subcommand: str, config: Namespace) -> str | None:
        """The file that --ckpt_path or --resume mean, or None."""
        output, asked = Path(config.output), config.get("ckpt_path")
        if config.resume == "auto":
            if subcommand != "fit" or asked:
                raise InputError("--resume auto is for 'visattn fit' without a --ckpt_path")
            found = latest(output)
            return found and str(found)
        if not asked:
            return None
        path = output / f"{asked}.ckpt" if asked in ("last", "best") else asked
        if is_shipped(path):
            if subcommand == "fit":
                raise InputError(f"{path} is no run to go on with; begin from its weights with --start_from {path}")
            return str(path)
        if not Path(path).is_file() and "://" not in str(asked):  # an address has a sentence of its own
            raise InputError(f"there is no checkpoint {path} (option --ckpt_path)")
        return str(path)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        output = Path(config.output)
        if self.subcommand == "fit" and not config.ckpt_path and (output / LAST).exists():
            raise InputError(
                f"{output} already holds a run: choose another --output, or continue it with --ckpt_path last"
            )
        if self.subcommand != "fit" and config.start_from != "none" and not config.ckpt_path:
            raise InputError(f"--start_from is for 'visattn fit'; give 'visattn {self.subcommand}' a --ckpt_path")
        protect_inputs(self.subcommand, config, sys.argv[1:] if self._args is None else self._args)

    def instantiate_classes(self) -> None:
        """As Lightning does; what constructors raise about their options is a sentence."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, LookupError) as error:
            if cause := _cause(error):
                raise cause from None
            said = " ".join(str(error).split())[:400]
            raise InputError(f"the options cannot be used ({type(error).__name__}): {said}") from error

    def after_instantiate_classes(self) -> None:
        """What only the data can say is compared with the checkpoint, and the weights' sizes."""
        if isinstance(self.datamodule, CaptionData):
            data = self.datamodule
            protect(example.path for split in ("train", "val", "test") for example in data.examples(split))
        if self._checkpoint is None:
            return
        path, checkpoint = self._checkpoint
        self._checkpoint = None  # its memory
        for name in ("image_size", "fit"):
            here, there = getattr(self.datamodule, name), checkpoint["hyper_parameters"].get(name)
            same = here == (tuple(there) if isinstance(there, list) else there)
            if not same and not self._get(self.config, "override_checkpoint"):
                raise InputError(
                    f"the data's {name} is {here!r} here and {there!r} in {path}; give the data that option, or "
                    "--override_checkpoint to use the value given here"
                )
        require_agreement(path, checkpoint, self.model)

    def _run_subcommand(self, subcommand: str) -> None:
        output = Path(self._get(self.config, "output"))
        if rank_zero_only.rank == 0:
            log.info(self.trainer.said)
            if self.trainer.slow:
                log.warning(self.trainer.slow)
        if subcommand != "fit":
            require_writable(output)
            super()._run_subcommand(subcommand)
        elif rank_zero_only.rank:  # the first process has claimed it for all
            super()._run_subcommand(subcommand)
        else:
            with claimed(output):
                remove_unfinished(output)
                super()._run_subcommand(subcommand)
        _require_batches(self.trainer, subcommand)

    def before_fit(self) -> None:
        """Lightning's hook, when all is there and nothing has begun."""
        checkpoint = self._get(self.config, "start_from")
        if checkpoint != "none" and not self._get(self.config, "ckpt_path"):  # a run that goes on has begun
            start_from(checkpoint, self.model)

    def instantiate_trainer(self, **kwargs: object) -> object:
        if (features := self._get(self.config_init, "features")) != "none":
            own = self._get(self.config_init, "trainer.callbacks") or []
            kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), FeatureCache(features)]
        plugins = self._get(self.config_init, "trainer.plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), WholeCheckpoints()]
        output = self._get(self.config_init, "output")
        if self._get(self.config_init, "trainer.logger") in (None, True):
            kwargs["logger"] = CSVLogger(output, name="logs")
        if self._get(self.config_init, "trainer.default_root_dir") is None:
            kwargs["default_root_dir"] = output
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Without what the user did not ask for, and Lightning refuses where there are no logs or checkpoints."""
        if config.get("barebones"):
            raise InputError(
                "--trainer.barebones leaves out logs, checkpoints and scores, all that a run is for; see "
                "--trainer.logger=false and --trainer.enable_checkpointing=false"
            )
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        if config["logger"] is False or config["logger"] == []:
            own = [c for c in self.trainer_defaults["callbacks"] if not isinstance(c, LearningRateMonitor)]
            self.trainer_defaults = {**self.trainer_defaults, "callbacks": own}
        return super()._instantiate_trainer(config, callbacks)


def _require_batches(trainer: Trainer, subcommand: str) -> None:
    """Raise an `InputError` where a subcommand had nothing to do, which Lightning takes for success."""
    if subcommand == "fit":
        batches, limit = trainer.num_training_batches, "limit_train_batches"
    elif subcommand == "predict":
        batches, limit = sum(trainer.num_predict_batches), "limit_predict_batches"
    else:
        name = "val" if subcommand == "validate" else "test"
        batches, limit = sum(getattr(trainer, f"num_{name}_batches")), f"limit_{name}_batches"
    if batches == 0 or getattr(trainer, limit) == 0:
        raise InputError(f"'visattn {subcommand}' had no batch: the data is empty, or --trainer.{limit} leaves none")


def _cause(error: BaseException | None) -> InputError | None:
    """The `InputError` that an error was raised from, which jsonargparse wraps."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


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
    # Left out with --trainer.enable_checkpointing=false, and where a run goes on without a --trainer.max_time.
    r"""Be aware that when using `ckpt_path`, callbacks .*\[["'](ModelCheckpoint|Timer)[^"]*["']\]""",
    r".*The dirpath has changed from",  # a checkpoint is validated with another --output
    r".*Using `DistributedSampler` with the dataloaders",  # images that it repeats are counted once
)


@guarded()
def run_cli(args: ArgsType = None) -> CLI:
    """Run one subcommand, as the command line does, and hand back what it built.

    Args:
        args: the words of the command line after the program's name; None takes those of this process.

    Raises:
        InputError: where something that the user gave cannot be used.
    """
    if not isinstance(args, dict):
        named, args = take_imports([local_path(word) for word in (sys.argv[1:] if args is None else args)])
        protect(named)
        for name in named:
            import_classes(name)
        args = resolved(args)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    try:
        return CLI(
            LightningModule,
            LightningDataModule,
            called=args.get("subcommand", "") if isinstance(args, dict) else next(iter(args), ""),
            trainer_class=Trainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            parser_kwargs={
                "prog": "visattn",
                "description": "Train and test captioners and Vision Transformers whose attention can be looked at. "
                "--import FILE|MODULE, anywhere on the line, names classes of your own for the configuration.",
            },
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=SavedConfiguration,
            trainer_defaults={
                "callbacks": [LearningRateMonitor("step"), Throughput(), AttentionHealth(), StopWhenNotFinite()],
                "log_every_n_steps": 20,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "inference_mode": False,  # there autocast converts the weights anew at every word
            },
        )
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid", str(error)):
            raise
        raise InputError(
            f"a process that loads data has died: {str(error).strip().rstrip('.')}. If memory is short, lower "
            "--data.init_args.workers or the sizes of batches"
        ) from error
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    except ValueError as error:  # jsonargparse wraps what goes wrong while it asks the data for the vocabulary
        if (cause := _cause(error)) is None:
            raise
        raise cause from None
