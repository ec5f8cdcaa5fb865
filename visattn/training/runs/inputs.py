"""The inputs of a run, which must not be overwritten."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from visattn.errors import InputError
from visattn.files import protect, require_free
from visattn.training.runs.resuming import LAST, PREVIOUS


def protect_inputs(subcommand: str, config: Namespace, words: Iterable[Any]) -> None:
    """Protect all files named on the command line or in a configuration, and check that no output is among them.

    A resumed run may replace the checkpoint that it is resumed from.

    Args:
        subcommand: fit, validate, test or predict.
        config: its configuration.
        words: the command-line arguments.

    Raises:
        InputError: if an input would be overwritten, or the best checkpoint would not be in `output`.
    """
    output, best = Path(config.output), config.checkpoint.filename or "best"
    named = {text for part in (config.as_dict(), words) for text in _strings(part)}
    named |= {word.partition("=")[2] for word in named}
    root = Path(str(config.get("data.init_args.root", ".")))
    inputs = [folder / name for name in named for folder in (Path(), root)]
    if subcommand == "fit" and config.ckpt_path and (config.resume == "auto" or (output / LAST).exists()):
        goes_on = Path(config.ckpt_path).resolve()
        inputs = [path for path in inputs if path.resolve() != goes_on or goes_on.parent != output.resolve()]
    protect(inputs)
    if ".." in Path(best).parts or Path(best).is_absolute():
        raise InputError(f"--checkpoint.filename is {best}, which is outside the folder of --output")
    written = {
        "fit": [LAST, PREVIOUS, f"{best}.ckpt", "attention/health.jsonl"],
        "validate": ["exposure_val.json", "exposure_val.png", "stopping_val.json", "stopping_val.png"],
        "test": ["exposure_test.json", "exposure_test.png", "stopping_test.json", "stopping_test.png"],
        "predict": ["predictions.json"],
    }
    require_free(output / name for name in written[subcommand])


def _strings(value: Any) -> Iterator[str]:
    """All strings and paths in a configuration."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, str | os.PathLike) and len(str(value)) < 4096:
        yield str(value)
