"""The exception for errors in the user's input, and a part of its message that many need."""


class InputError(Exception):
    """A file, folder, option or annotation that cannot be used.

    The message is one sentence that names it and says what to do. Programs print it and exit with status 2; everything
    else that is raised is a bug and keeps its traceback. It is not a `ValueError`, since the command line's parser
    would catch that and wrap the message in its own.
    """


def install(extra: str) -> str:
    """How to install an extra of this package, as the end of an error message."""
    return f"pip install 'visattn[{extra}]', or uv pip install in a checkout"
