"""A run's folder: one run at a time in it, and room to write before hours of training."""

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visattn.errors import InputError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Have a folder for oneself, made where there is none; a process that ends in any way lets go of it.

    Raises:
        InputError: where another process has it.
        OSError: where it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A lock of the process (POSIX), not of the open file as `flock` has it: workers that outlive a killed run for some
    # seconds have the file open, too. The file itself stays, since to delete it would race with who waits for it.
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(lock, 200).decode(errors="replace").strip() or "unknown"
            raise InputError(
                f"{folder} is in use by another run ({holder}); wait for its end, or choose another --output"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def require_writable(folder: Path) -> None:
    """Make a folder where there is none, and see that files can be written in it.

    Raises:
        OSError: where not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
