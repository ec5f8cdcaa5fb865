"""A run's folder: used by one run at a time, and checked for write access before training."""

import logging
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visattn.errors import InputError
from visattn.files import lock

log = logging.getLogger(__name__)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a folder for this process, creating it if needed; the lock ends with the process.

    If the system has no locks (Windows), a warning is logged instead.

    Raises:
        InputError: if another process has locked it.
        OSError: if it cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock file is kept, since deleting it would race with processes waiting for it.
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = lock(file)
        if locked is False:
            holder = os.read(file, 200).decode(errors="replace").strip() or "unknown"
            raise InputError(
                f"{folder} is in use by another run ({holder}); wait until it ends, or choose another --output"
            )
        if locked is None:
            log.warning("%s cannot be locked; make sure that no other run writes to it", folder)
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def require_writable(folder: Path) -> None:
    """Create a folder if needed, and check that it is writable.

    Raises:
        OSError: if not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
