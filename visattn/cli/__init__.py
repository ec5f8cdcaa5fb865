"""`visattn COMMAND`: one program that imports only the command it runs."""

import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

TRAINING = {
    "fit": "train a model from a configuration",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write a checkpoint's predictions for a data set",
}
"""LightningCLI's subcommands, all in `visattn.cli.training`."""

GROUPS: dict[str, dict[str, str]] = {
    "Start here": {
        "demo": "train two small models on generated scenes and show their attention; minutes on two cores",
        "caption": "caption photographs and overlay the attention of each word",
        "overlay": "classify images with a Vision Transformer and overlay its attention",
        "features": "show a Vision Transformer's patch features: PCA colours, similarity, token norms",
        "app": "caption or classify photographs in a page in the browser",
        "view": "browse the results of caption and overlay in one HTML page",
        "explain-page": "write an HTML page in which a Vision Transformer runs",
    },
    "Train": {
        **TRAINING,
        "curves": "plot the logged metrics of training runs",
        "check-data": "list every fault in a captioned data set",
        "prepare-coco": "download and check COCO",
    },
    "Measure": {
        "evaluate": "score captions as the official COCO tool does",
        "ground": "compare attention with the outlines of the objects named",
        "faithfulness": "test whether attention maps show what the model used",
        "rank": "rank the maps of a classifier by how faithful they are",
        "exposure": "compare the exposure bias of captioners",
        "compare": "train every attention mechanism with the same budget",
        "sequences": "compare attention mechanisms on toy sequence tasks",
        "glimpses": "compare glimpses with the whole picture: accuracy against work",
        "estimators": "compare gradient estimators of hard attention with the exact gradient",
        "benchmark": "compare speed with other implementations",
        "gpu-check": "check and measure everything on a GPU, in nine minutes",
    },
    "Use elsewhere": {
        "export": "write safetensors or ONNX files that load without Lightning",
        "push": "upload an exported model to the hub, with a model card",
    },
}

COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


def usage() -> str:
    """What `visattn --help` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: visattn COMMAND [OPTIONS]", ""]
    lines += ["Train, test and visualise captioners and Vision Transformers with attention.", ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:{width}}  {line}" for name, line in group.items()), ""]
    return "\n".join([*lines, "Run visattn COMMAND --help for the options of a command."])


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: command-line arguments without the program name; None uses `sys.argv`.

    Returns:
        The exit status: 0 on success, 2 after an error that the user can fix, 130 when interrupted, 141 if nobody reads
        the output any more (`visattn --help | head -1`); `check-data` also returns 1.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if args is None else args))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        return 141


def _run(words: Sequence[str]) -> int:
    if words[:1] in (["-h"], ["--help"]):
        print(usage())
        return 0
    if words[:1] == ["--version"]:
        from visattn import __version__

        print(f"visattn {__version__}")
        return 0
    if not words or words[0] not in COMMANDS:
        return _refuse(words)
    command = words[0]
    try:
        if command in TRAINING:
            return importlib.import_module("visattn.cli.training").main(words)
        return importlib.import_module(f"visattn.cli.{command.replace('-', '_')}").main(words[1:])
    except KeyboardInterrupt:  # during import; later the command handles it
        print("interrupted", file=sys.stderr)
        return 130


def _refuse(words: Sequence[str]) -> int:
    """Report an unknown command and suggest similar names."""
    if not words:
        said = "no command given"
    else:
        near = get_close_matches(words[0], COMMANDS, n=3)
        said = f"there is no command {words[0]!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    print(f"error: {said}; visattn --help lists the commands".replace("?;", "?"), file=sys.stderr)
    return 2
