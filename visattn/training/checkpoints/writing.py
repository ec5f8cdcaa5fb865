"""Atomic writing of checkpoints, instead of Lightning's.

Lightning writes to a temporary folder and moves the file from there: if that is on another disk, a full disk or a kill
can replace a good checkpoint by an incomplete one.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from visattn.files import remove_file, require_free, whole_file
from visattn.training.checkpoints.reading import read


class WholeCheckpoints(CheckpointIO):
    """Writes each file to a temporary name in the same folder, syncs it, then renames it; reads as `read` does."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Path | None = None
    ) -> None:
        """Write a checkpoint atomically.

        Args:
            checkpoint: tensors and plain values.
            path: the file; its folder is created if needed.
            storage_options: new name of an existing file at `path`; by default that file is replaced.

        Raises:
            InputError: if an input would be overwritten.
            OSError: if the disk is full or the folder is read-only; both files are then unchanged.
        """
        path = Path(path)
        require_free([path, *([storage_options] if storage_options else [])])
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, temporary(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # PyTorch's writer says where in its file it stood, and not what was wrong
                cause = error.__context__
                if not isinstance(cause, OSError):
                    raise
                raise OSError(cause.errno, cause.strerror) from error
            file.flush()
            os.fsync(file.fileno())
            if storage_options is not None and path.exists():
                _also_call(path, storage_options)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As `visattn.training.checkpoints.read`, whatever is asked for."""
        return read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        remove_file(path)


def temporary(path: Path) -> str:
    """The name of a checkpoint's file while it is being written."""
    return f".{path.name}.tmp"


def remove_unfinished(folder: Path) -> None:
    """Delete what kills have left of checkpoints that were being written; only one run may be in the folder."""
    for path in folder.glob(temporary(Path("*.ckpt"))):
        path.unlink(missing_ok=True)


def _also_call(path: Path, name: Path) -> None:
    """Give a file a second name, in one step: another link, or a copy where the file system has none."""
    second = name.with_name(temporary(name))
    with suppress(FileNotFoundError):
        second.unlink()
    try:
        second.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, second)
    second.replace(name)
