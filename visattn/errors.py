"""The exception for errors in the user's input, and checks and a part of its message that many need."""

import difflib
import math
import operator
from collections.abc import Iterable


class InputError(Exception):
    """A file, folder, option or annotation that cannot be used.

    The message is one sentence that names it and says what to do. Programs print it and exit with status 2; everything
    else that is raised is a bug and keeps its traceback. It is not a `ValueError`, since the command line's parser
    would catch that and wrap the message in its own.
    """


def similar(name: str, known: Iterable[str]) -> str:
    """The known names closest to one that is not known, as a part of an error message; empty if none is close."""
    return ", ".join(difflib.get_close_matches(name, list(known), 5))


def install(extra: str) -> str:
    """How to install an extra of this package, as the end of an error message."""
    return f"pip install 'visattn[{extra}]', or uv pip install in a checkout"


def require_number(
    what: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    of: str = "",
) -> None:
    """Raise an `InputError` unless an option, called `what` in the message, is finite and within these limits."""
    said = f"{what} is {value}; {f'that of {of}' if of else 'it'} must be"
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{said} a finite number")
    rules = (
        *(("at least", least, operator.ge), ("more than", above, operator.gt)),
        *(("at most", most, operator.le), ("less than", below, operator.lt)),
    )
    given = [(words, limit, holds) for words, limit, holds in rules if limit is not None]
    if not all(holds(value, limit) for _, limit, holds in given):
        raise InputError(f"{said} {' and '.join(f'{words} {limit:,}' for words, limit, _ in given)}")


def require_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raise an `InputError` unless an option, called `what` in the message, is one of the choices."""
    if value not in (known := tuple(choices)):
        raise InputError(f"{what} is '{value}'; it must be one of {', '.join(known)}")
