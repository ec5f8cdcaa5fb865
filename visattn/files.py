"""Files that are written whole, or not at all.

A reader, a second process or a power cut never meets half a file: the content goes to a temporary file in the same
folder, is forced to the disk, and takes the name in one atomic step. Of two writers, the last one to finish wins.
"""

import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to the file `path`, whole; its folder must exist.

    Raises:
        OSError: where the folder is missing, is read-only or is full. What stood at `path` is then as it was.
    """
    path = Path(path)
    temporary = path.with_name(
        f".{secrets.token_hex(8)}.tmp"
    )  # not from the file's name: that may be as long as allowed
    try:
        with temporary.open("xb") as file:  # not `tempfile`, whose files only their owner may read
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to the file `path` as UTF-8, whole, with its line ends as they are; raises as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", errors="replace"))  # a lone surrogate becomes "?", and the rest survives


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write named arrays to the compressed NumPy file `path`, whole; raises as `write_bytes` does."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears at `path` with all that was written in it, or not at all.

    Yields:
        The hidden folder beside it in which to write.

    Raises:
        OSError: where something stands at `path` already, other than an empty folder; or where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()  # an empty one; some systems rename to no folder that is there
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
