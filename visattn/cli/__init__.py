"""`visattn COMMAND`: one program, of which only the command that is called is loaded."""

import importlib
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
        "demo": "train two small models on generated scenes and see their attention; minutes on two cores",
        "caption": "caption photographs and lay the attention of each word over them",
        "overlay": "classify images with a Vision Transformer and lay its attention over them",
        "view": "one HTML page to walk through what caption and overlay wrote",
    },
    "Train": {
        **TRAINING,
        "curves": "draw the logged numbers of trainings",
        "check-data": "list every fault of a captioned data set",
        "prepare-coco": "download COCO and check it",
    },
    "Measure": {
        "evaluate": "score captions as the official COCO tool does",
        "ground": "compare attention with the outlines of the things named",
        "faithfulness": "test whether attention maps show what the model used",
        "exposure": "compare exposure bias between captioners",
        "compare": "train every attention mechanism with the same budget",
        "sequences": "compare attention on toy sequence tasks",
        "benchmark": "time the project's parts beside other implementations",
    },
    "Use elsewhere": {
        "export": "write safetensors or ONNX files that load without Lightning",
    },
}

COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


def usage() -> str:
    """What `visattn --help` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: visattn COMMAND [OPTIONS]", ""]
    lines += ["Train, test and look into captioners and Vision Transformers with attention.", ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:{width}}  {line}" for name, line in group.items()), ""]
    return "\n".join([*lines, "visattn COMMAND --help lists the options of a command."])


def main(args: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        args: the words after the program's name; None takes those of this process.

    Returns:
        The exit status: 0, 2 after a sentence that says what the user can mend, 130 when interrupted; `check-data` also
        has 1.
    """
    words = list(sys.argv[1:] if args is None else args)
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
    except KeyboardInterrupt:  # while it is loaded; later the command itself says so
        print("interrupted", file=sys.stderr)
        return 130


def _refuse(words: Sequence[str]) -> int:
    """Say that there is no such command, and which may have been meant."""
    if not words:
        said = "no command is given"
    else:
        near = get_close_matches(words[0], COMMANDS, n=3)
        said = f"there is no command {words[0]!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    print(f"error: {said}; visattn --help lists the commands".replace("?;", "?"), file=sys.stderr)
    return 2
