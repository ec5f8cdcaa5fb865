"""LightningCLI for `visattn fit|validate|test|predict`, with one-sentence errors."""

import logging
import re
import signal
import sys
import threading
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
from visattn.errors import InputError, similar
from visattn.files import guarded, local_path, protect
from visattn.imports import import_classes, take_imports
from visattn.training.callbacks import (
    AttentionHealth,
    ExposureReport,
    FeatureCache,
    PredictionWriter,
    StoppingReport,
    StopWhenNotFinite,
    Throughput,
)
from visattn.training.checkpoints import (
    WholeCheckpoints,
    differences,
    is_exported,
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

OF_DATA = ("output_names", "image_size", "fit", "tokens")  # model options that the data sets
OF_DECODING = ("search", "no_repeat", "max_length")  # … that may differ from the checkpoint's
# … that are used in training only
OF_TRAINING = ("optimization", "regime", "label_smoothing", "mixup", "cutmix", "mix_probability", "mix_each")


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence; jsonargparse lists every type that was tried."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a one-sentence `InputError`; a part's own sentence stands within the errors of all types tried."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        unknown = re.search(
            r"(?:unrecognized arguments: (?:--)?|does not accept option ')([\w.-]+)|Option '([\w.-]+)' is not accepted",
            message,
        )
        if unknown:
            name = unknown[1] or unknown[2]
            known = {
                option.lstrip("-").partition(".")[2] or option.lstrip("-") for option in self._option_string_actions
            }
            close = similar(name.rpartition(".")[2], known - {"help"})
            message = f"there is no option or configuration key '{name}'"
            message += f" (similar: {close})" if close else ""
            message += (
                "; 'visattn fit --help' lists them, with --data.help CLASS or --model.help CLASS those of a class"
            )
        else:
            message = " ".join(message.split())
            message = message if len(message) < 400 else message[:400] + " …"
        raise InputError(message) from ex


class CLI(LightningCLI):
    """Options are the constructor arguments of model and data; the data sets the model's inputs and outputs."""

    def __init__(self, *args: Any, called: str, **kwargs: Any) -> None:
        self._called = called
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:
        """Only the subcommand called: building each parser takes a third of a second."""
        known = LightningCLI.subcommands()
        return {self._called: known[self._called]} if self._called in known else known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = Parser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ActionConfigFile,
            help="YAML configuration file, or the name of an included one, such as shapes_captioner; --import "
            "FILE|MODULE, anywhere on the command line, loads your own classes for it",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", default="runs/visattn", help="folder for checkpoints, logs and predictions")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.filename": "best", "checkpoint.enable_version_counter": False})
        parser.link_arguments("output", "checkpoint.dirpath")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.link_arguments("output", "last.directory")
        parser.add_argument(
            "--resume",
            type=Literal["none", "auto"],
            default="none",
            help="'auto': 'visattn fit' continues the run in --output from its last checkpoint, or starts a new one",
        )
        parser.add_argument(
            "--override_checkpoint",
            action="store_true",
            help="use the options given here where they contradict the checkpoint, which otherwise is an error",
        )
        parser.add_argument(
            "--features",
            default="none",
            help="folder in which to cache the annotation vectors of a frozen encoder; 'none' encodes the images in "
            "every epoch",
        )
        parser.add_argument(
            "--start_from",
            default="none",
            help="checkpoint with the initial weights for 'visattn fit', for example to switch to another regime or "
            "attention; to continue a run with its optimiser, use --ckpt_path",
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.link_arguments("output", "predictions.directory")
        parser.add_lightning_class_args(ExposureReport, "exposure")
        parser.link_arguments("output", "exposure.directory")
        parser.add_lightning_class_args(StoppingReport, "stopping")
        parser.link_arguments("output", "stopping.directory")
        for name in OF_DATA:
            parser.link_arguments("data", f"model.init_args.{name}", _attribute(name), apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self._args = args
        super().parse_arguments(parser, args)

    def _stated(self) -> Namespace:
        """The subcommand's options given by the user, in files or on the command line, without defaults."""
        args = sys.argv[1:] if self._args is None else self._args
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # already shown
            parse = self.parser.parse_args if isinstance(args, list) else self.parser.parse_object
            return parse(args, defaults=False)[self.config.subcommand]

    def _parse_ckpt_path(self) -> None:
        """Take the model's options from the checkpoint; contradicting options are an error.

        Replaces Lightning's method, which silently prefers the checkpoint.
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
            raise InputError(f"{config.ckpt_path} contains {found}, but the configuration has {stated.class_path}")
        own = config.model and config.model.clone()
        saved = {name: value for name, value in options.items() if name not in OF_DATA}
        model = {"class_path": found, "init_args": saved}
        config.model = None  # an option newer than the checkpoint had its default there, whatever is stated here
        try:
            self.config = self.parser.parse_object({subcommand: {"model": model}}, self.config)
        except InputError as error:
            raise InputError(f"{config.ckpt_path} cannot be used with this version of visattn: {error}") from error
        saved = self.config[subcommand].model.init_args.as_dict()
        for option, here, there in differences(stated.init_args.as_dict() if stated else {}, saved):
            if subcommand != "fit" and option.partition(".")[0] in OF_TRAINING:
                continue
            of = option.partition(".")[0]
            free = of in OF_DECODING or config.override_checkpoint
            free |= is_exported(config.ckpt_path) and of not in options  # the loss: an exported model does not store it
            mend = "or give --override_checkpoint to use the value given here"
            if of == "optimization":  # Lightning restores the optimiser
                mend = "or start another training with --start_from"
            if of == "optimization" or not free:
                raise InputError(
                    f"--model.init_args.{option} is {here!r} here and {there!r} in {config.ckpt_path}; leave it out, "
                    f"{mend}"
                )
            self.config[f"{subcommand}.model.init_args.{option}"] = own.init_args[option]

    def _find_checkpoint(self, subcommand: str, config: Namespace) -> str | None:
        """The file selected by --ckpt_path or --resume, or None."""
        output, asked = Path(config.output), config.get("ckpt_path")
        best = f"{config.checkpoint.filename}.ckpt"
        if config.resume == "auto":
            if subcommand != "fit" or asked:
                raise InputError("--resume auto is for 'visattn fit' without a --ckpt_path")
            found = latest(output, best)
            return found and str(found)
        if not asked:
            return None
        path = output / {"last": LAST, "best": best}[asked] if asked in ("last", "best") else asked
        if is_exported(path):
            if subcommand == "fit":
                raise InputError(f"{path} is not a run that can be continued; use its weights with --start_from {path}")
            return str(path)
        if not Path(path).is_file() and "://" not in str(asked):  # addresses have their own error
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
        """As in Lightning, but errors of constructors become one sentence."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, LookupError) as error:
            if cause := _cause(error):
                raise cause from None
            said = " ".join(str(error).split())[:400]
            raise InputError(f"the options cannot be used ({type(error).__name__}): {said}") from error

    def after_instantiate_classes(self) -> None:
        """Compare the options set by the data, and the sizes of the weights, with the checkpoint."""
        if isinstance(self.datamodule, CaptionData):
            data = self.datamodule
            protect(example.path for split in ("train", "val", "test") for example in data.examples(split))
        if self._checkpoint is None:
            return
        path, checkpoint = self._checkpoint
        self._checkpoint = None  # free its memory
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
        elif rank_zero_only.rank:  # the first process has locked the folder for all
            super()._run_subcommand(subcommand)
        else:
            with claimed(output):
                remove_unfinished(output)
                super()._run_subcommand(subcommand)
        _require_batches(self.trainer, subcommand)

    def before_fit(self) -> None:
        """Lightning's hook, before training starts."""
        checkpoint = self._get(self.config, "start_from")
        if checkpoint != "none" and not self._get(self.config, "ckpt_path"):  # a continued run has its weights
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
        """Drop our default callbacks that Lightning rejects when there are no logs or checkpoints."""
        if config.get("barebones"):
            raise InputError(
                "--trainer.barebones is not supported, since it disables logs, checkpoints and scores; see "
                "--trainer.logger=false and --trainer.enable_checkpointing=false"
            )
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        if config["logger"] is False or config["logger"] == []:
            own = [c for c in self.trainer_defaults["callbacks"] if not isinstance(c, LearningRateMonitor)]
            self.trainer_defaults = {**self.trainer_defaults, "callbacks": own}
        return super()._instantiate_trainer(config, callbacks)


def _require_batches(trainer: Trainer, subcommand: str) -> None:
    """Raise an `InputError` if there were no batches, which Lightning accepts silently."""
    if subcommand == "fit":
        batches, limit = trainer.num_training_batches, "limit_train_batches"
    elif subcommand == "predict":
        batches, limit = sum(trainer.num_predict_batches), "limit_predict_batches"
    else:
        name = "val" if subcommand == "validate" else "test"
        batches, limit = sum(getattr(trainer, f"num_{name}_batches")), f"limit_{name}_batches"
    if batches == 0 or getattr(trainer, limit) == 0:
        raise InputError(f"'visattn {subcommand}' had no batches: the data is empty, or --trainer.{limit} is 0")


def _cause(error: BaseException | None) -> InputError | None:
    """The `InputError` that caused an error; jsonargparse wraps exceptions."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _attribute(name: str) -> Callable[[LightningDataModule], object]:
    def get(data: LightningDataModule) -> object:
        return getattr(data, name)

    return get


# Warnings of Lightning and PyTorch about their internals, or about behaviour that is intended here.
_NOISE = (
    r"LightningCLI's args parameter is intended to run from within Python",  # as the demo and the tests do
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with PyTorch 2.15
    r".*Found \d+ module\(s\) in eval mode",  # frozen stages of an encoder
    r".*does not have many workers",  # data in memory loads faster without workers
    r".*Checkpoint directory .* exists and is not empty",  # checked in `before_instantiate_classes`
    r".*could not find the monitored key",  # stopped before the first validation
    r".*Couldn't infer the batch indices fetched",  # predictions are matched by image id
    # With --trainer.enable_checkpointing=false, or a run continued without --trainer.max_time.
    r"""Be aware that when using `ckpt_path`, callbacks .*\[["'](ModelCheckpoint|Timer)[^"]*["']\]""",
    r".*The dirpath has changed from",  # a checkpoint validated with another --output
    r".*Using `DistributedSampler` with the dataloaders",  # repeated images are counted once
)


@guarded()
def run_cli(args: ArgsType = None) -> CLI:
    """Run one subcommand, as the command line does, and return its `CLI`.

    Args:
        args: command-line arguments without the program name; None uses `sys.argv`.

    Raises:
        InputError: if the user's input cannot be used.
    """
    if not isinstance(args, dict):
        named, args = take_imports([local_path(word) for word in (sys.argv[1:] if args is None else args)])
        protect(named)
        for name in named:
            import_classes(name)
        args = resolved(args)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    if rank_zero_only.rank:  # every process reads the same captions
        logging.getLogger("visattn.data.losses").setLevel(logging.ERROR)
    interrupt = signal.getsignal(signal.SIGINT)
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
                "description": "Train and test captioners and Vision Transformers with attention. "
                "--import FILE|MODULE, anywhere on the command line, loads your own classes for the configuration.",
            },
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=SavedConfiguration,
            trainer_defaults={
                "callbacks": [LearningRateMonitor("step"), Throughput(), AttentionHealth(), StopWhenNotFinite()],
                "log_every_n_steps": 20,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "inference_mode": False,  # in inference mode autocast converts the weights again at every word
            },
        )
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid", str(error)):
            raise
        raise InputError(
            f"a data-loading process died: {str(error).strip().rstrip('.')}. If memory ran out, lower "
            "--data.init_args.workers or the batch size"
        ) from error
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    except ValueError as error:  # jsonargparse wraps errors raised while it reads the vocabulary from the data
        if (cause := _cause(error)) is None:
            raise
        raise cause from None
    finally:
        # After Ctrl-C Lightning ignores it for the rest of the process, which may be a notebook.
        if interrupt is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
