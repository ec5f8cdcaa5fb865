"""Shared code of all commands: option parsing, error reporting, exit status."""

import argparse
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from visattn.errors import InputError
from visattn.fast.allocator import keep_freed_memory
from visattn.files import guarded, local_path, protect
from visattn.imports import import_classes

Main = Callable[[Sequence[str] | None], int | None]


def program(main: Main) -> Callable[..., int]:
    """Wrap a main function: keep freed memory, and report errors that the user can fix in one sentence.

    Args:
        main: takes the command-line arguments without the program name; None uses `sys.argv`. It may return a status.

    Returns:
        A function with the same argument that returns the exit status: `main`'s or 0 if it ends, 2 after an
        `InputError` or an `OSError` (missing folder, full disk, missing permission), 130 when interrupted.
    """

    @functools.wraps(main)
    def run(args: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):  # file names may have characters that the terminal cannot show
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        words = sys.argv[1:] if args is None else args
        # No log messages with help: -h, --help, or jsonargparse's --data.help CLASS.
        helps = any(re.match(r"-h$|--h(e(lp?)?)?$|--[\w.]+\.help(=|$)", word) for word in words)
        logging.getLogger("visattn").setLevel(logging.WARNING if helps else logging.INFO)
        keep_freed_memory()
        try:
            with guarded():
                status = main(args)
        except (InputError, OSError) as error:
            print(f"error: {_sentence(error)}", file=sys.stderr)
            return 2
        except MemoryError as error:
            print(f"error: out of memory; try a smaller batch ({error})", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning turns an interrupt into an exit with status 1.
            if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            print("interrupted", file=sys.stderr)
            return 130
        return status or 0

    return run


def _sentence(error: OSError | InputError) -> str:
    """What to tell the user."""
    if isinstance(error, NotADirectoryError | FileExistsError) and isinstance(error.filename, str):
        place = Path(error.filename)
        for path in (place, *place.parents):
            if path.exists() and not path.is_dir():
                return f"{path} is a file, where a folder is needed; choose another name"
    # Errors in a data-loading process arrive as a traceback; the message is at its end.
    return str(error).rpartition("visattn.errors.InputError: ")[2].strip()


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for `visattn NAME` that prints the description unchanged."""
    return argparse.ArgumentParser(
        prog=f"visattn {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_image_argument(parser: argparse.ArgumentParser, nargs: Literal["+", "*"]) -> None:
    """Add the argument `images`: at least one, or any number."""
    parser.add_argument(
        "images", nargs=nargs, type=Path, metavar="IMAGE|FOLDER", help="image files, or folders of images"
    )


def parse(parser: argparse.ArgumentParser, args: Sequence[str] | None, *outputs: str) -> argparse.Namespace:
    """Parse a command line, and protect every input file that it names from being overwritten.

    Args:
        parser: the command's parser.
        args: command-line arguments without the program name; None uses `sys.argv`.
        outputs: names of the options that are outputs.

    Raises:
        InputError: if a number is out of range, or the shell split a path at its spaces.
    """
    options = parser.parse_args([local_path(word) for word in (sys.argv[1:] if args is None else args)])
    given = {name: value if isinstance(value, list) else [value] for name, value in vars(options).items()}
    for name, values in given.items():
        for value in values:
            if isinstance(value, int | float) and not -(2**63) <= value < 2**63:  # also catches NaN
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be a finite number within 64 bits")
        if name not in outputs:
            protect([value for value in values if isinstance(value, str | os.PathLike)])
        _require_whole([value for value in values if isinstance(value, Path)])
    for name in getattr(options, "imports", ()):
        import_classes(name)
    return options


def check_ranges(options: argparse.Namespace, **ranges: tuple[float, float]) -> None:
    """Check that numeric options are within their range, limits included; None is allowed.

    Raises:
        InputError: if one is out of range.
    """
    for name, (least, most) in ranges.items():
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not least <= value <= most:
                bound = f"at least {least:,}" if not value > most else f"at most {most:,}"
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be {bound}")


def _require_whole(paths: Sequence[Path]) -> None:
    """Raise a clear error if the shell split a path at its spaces."""
    for start, path in enumerate(paths):
        for stop in range(start + 2, min(start + 12, len(paths)) + 1) if not path.exists() else ():
            whole = Path(" ".join(map(str, paths[start:stop])))
            if whole.exists():
                raise InputError(f"{whole} was split into {stop - start} words; put the path in quotes")
