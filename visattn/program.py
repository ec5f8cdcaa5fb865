"""What every program of the project does around its main function."""

import functools
import io
import logging
import re
import sys
from collections.abc import Callable, Sequence

from visattn.allocator import keep_freed_memory
from visattn.errors import InputError

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
            main(args)
        except (InputError, OSError) as error:
            # A process that loads data hands its traceback over as the message; the sentence stands at its end.
            sentence = str(error).rpartition("visattn.errors.InputError: ")[2].strip()
            print(f"error: {sentence}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning makes an exit with status 1 of an interrupt.
            if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            print("interrupted", file=sys.stderr)
            return 130
        return 0

    return run
