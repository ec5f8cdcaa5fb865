"""Files that are written whole, or not at all.

A reader, a second process or a power cut never meets half a file: the content goes to a temporary file in the same
folder, is forced to the disk, and takes the name in one atomic step. Of two writers, the last one to finish wins.
"""

import io
import os
import secrets
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
