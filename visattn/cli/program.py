"""What every command does around its main function."""

import argparse
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from visattn.errors import InputError
from visattn.fast.allocator import keep_freed_memory
from visattn.files import guarded, local_path, protect
from visattn.imports import import_classes

Main = Callable[[Sequence[str] | None], None]


def program(main: Main) -> Callable[..., int]:
    """Make a main function a program: it keeps freed memory, and says in one sentence what the user can mend.

    Args:
        main: takes the words of the command line after the program's name, or None for those of this process.

    Returns:
        A function of the same argument that returns the exit status: 0, or 2 after an `InputError`, or 130 when
        interrupted. A missing folder, a full disk or a lack of permission counts as the user's to mend, too.
    """

    @functools.wraps(main)
    def run(args: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):  # a file's name may hold what a terminal cannot show
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        words = sys.argv[1:] if args is None else args
        # Where help is asked for, that is all to be said: -h, --help, or jsonargparse's --data.help CLASS.
        helps = any(re.match(r"-h$|--h(e(lp?)?)?$|--[\w.]+\.help(=|$)", word) for word in words)
        logging.getLogger("visattn").setLevel(logging.WARNING if helps else logging.INFO)
        keep_freed_memory()
        try:
            with guarded():
                main(args)
        except (InputError, OSError) as error:
            # A process that loads data hands its traceback over as the message; the sentence stands at its end.
            sentence = str(error).rpartition("visattn.errors.InputError: ")[2].strip()
            print(f"error: {sentence}", file=sys.stderr)
            return 2
        except MemoryError as error:
            print(f"error: memory does not suffice; ask for less, such as a smaller batch ({error})", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning makes an exit with status 1 of an interrupt.
            if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            print("interrupted", file=sys.stderr)
            return 130
        return 0

    return run


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for `visattn NAME`, whose help begins with a text that stands as it is written."""
    return argparse.ArgumentParser(
        prog=f"visattn {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse(parser: argparse.ArgumentParser, args: Sequence[str] | None, *outputs: str) -> argparse.Namespace:
    """The options of a command line; every file that they name is an input, and is not written over from now on.

    Args:
        parser: of the program.
        args: the words after the program's name, or None for those of this process.
        outputs: names of the options that say what is written.

    Raises:
        InputError: where a path with spaces came as several words.
    """
    options = parser.parse_args([local_path(word) for word in (sys.argv[1:] if args is None else args)])
    given = {name: value if isinstance(value, list) else [value] for name, value in vars(options).items()}
    for name, values in given.items():
        for value in values:
            if isinstance(value, int | float) and not -(2**63) <= value < 2**63:  # neither is "not a number"
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be a finite number within 64 bits")
        if name not in outputs:
            protect([value for value in values if isinstance(value, str | os.PathLike)])
        _require_whole([value for value in values if isinstance(value, Path)])
    for name in getattr(options, "imports", ()):
        import_classes(name)
    return options


def check_ranges(options: argparse.Namespace, **ranges: tuple[float, float]) -> None:
    """See that numbers among the options lie between the least and the most, both included; None is passed over.

    Raises:
        InputError: where one does not.
    """
    for name, (least, most) in ranges.items():
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not least <= value <= most:
                bound = f"at least {least:,}" if not value > most else f"at most {most:,}"
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be {bound}")


def _require_whole(paths: Sequence[Path]) -> None:
    """Say plainly where a shell has split a path at its spaces."""
    for start, path in enumerate(paths):
        for stop in range(start + 2, min(start + 12, len(paths)) + 1) if not path.exists() else ():
            whole = Path(" ".join(map(str, paths[start:stop])))
            if whole.exists():
                raise InputError(f"{whole} came as {stop - start} words; put it in quotes")
