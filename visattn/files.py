"""Atomic file writing that never overwrites inputs.

Files are never left half written, even after a crash or power cut: the content goes to a temporary file in the same
folder, is synced to disk, and is renamed atomically. Of two writers, the last one to finish wins.

A program declares its inputs with `protect`; until its `guarded` ends, no function here overwrites them, however the
path is spelled. `require_free` checks planned outputs in advance.

Names derived from external input, such as image ids, are made safe by `safe_name`.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from visattn.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class _Inputs:
    """Files that must not be overwritten, distinguished as the file system does; by path where it gives no numbers."""

    def __init__(self) -> None:
        self._new: list[Iterable[str | os.PathLike[str] | None]] = []
        self._known: dict[object, Path] = {}

    def add(self, paths: Iterable[str | os.PathLike[str] | None]) -> None:
        self._new.append(paths)  # examined when a file is first overwritten: a data set has 100,000 pictures

    def find(self, path: Path) -> Path | None:
        while self._new:
            for declared in self._new.pop():
                if declared is None:
                    continue
                for key in _keys(declared):
                    self._known.setdefault(key, Path(declared))
        return next((self._known[key] for key in _keys(path) if key in self._known), None)


def _keys(path: str | os.PathLike[str]) -> list[object]:
    """Identifiers of a file, with links followed; empty if there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return []
    if not stat.S_ISREG(status.st_mode):
        return []
    return [os.path.realpath(path), *([(status.st_dev, status.st_ino)] if status.st_ino else [])]


_guards: list[_Inputs] = []


@contextmanager
def guarded() -> Iterator[None]:
    """Until it ends, files that were declared with `protect` within it are not overwritten. A decorator, too."""
    inputs = _Inputs()
    _guards.append(inputs)
    try:
        yield
    finally:
        _guards.remove(inputs)


def protect(paths: Iterable[str | os.PathLike[str] | None]) -> None:
    """Declare inputs, which no function of this module overwrites until the innermost `guarded` ends.

    Args:
        paths: of files; what is None, no file or missing is passed over. A generator is not run before it has to be.
    """
    if _guards:
        _guards[-1].add(paths)


def require_free(paths: Iterable[str | os.PathLike[str]], option: str = "--output") -> None:
    """Check that files can be written at these paths without loss; of a folder, that all files in it may be replaced.

    Args:
        paths: of outputs, which need not be there.
        option: the one to change, for the message.

    Raises:
        InputError: if one is a declared input, by whatever spelling or link, or is no regular file.
    """
    for path in map(Path, paths):
        for file in path.rglob("*") if path.is_dir() else (path,):
            _require_no_input(file, option)


def require_file(path: str | os.PathLike[str], option: str = "--output") -> None:
    """`require_free` of one file to be written; makes its folder.

    Raises:
        InputError: as `require_free`, and if it is a folder.
        OSError: if its folder cannot be made.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name a file with {option}")
    require_free([path], option)
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def _require_no_input(path: Path, option: str = "--output") -> None:
    if not path.exists() or path.is_dir():
        return
    if not path.is_file():  # a device or a pipe, which renaming a file to would destroy
        raise InputError(f"{path} is not a regular file, so it cannot be replaced; choose another {option}")
    for inputs in reversed(_guards):
        if found := inputs.find(path):
            same = "" if found == path else f", the same file as {path},"
            raise InputError(f"{found}{same} is an input and would be overwritten; choose another {option}")


def remove_file(path: str | os.PathLike[str]) -> None:
    """Delete a file if it exists.

    Raises:
        InputError: if it is a declared input.
        OSError: if it cannot be deleted.
    """
    _require_no_input(Path(path))
    Path(path).unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | os.PathLike[str], temporary: str | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` when all is written; its folder must exist.

    Args:
        path: of the file to be.
        temporary: the name that it has until then, in the same folder, where it should be known; such a file of an
            earlier attempt is overwritten. By default the name is drawn.

    Raises:
        InputError: if a declared input, a device or a pipe is at `path`; see `protect`.
        OSError: if the folder is missing, is read-only or is full. What stood at `path` is then as it was.
    """
    path = Path(path)
    _require_no_input(path)
    # Not from the file's name, which may be as long as allowed; not `tempfile`, whose files only their owner may read.
    unfinished = path.with_name(temporary or f".{secrets.token_hex(8)}.tmp")
    try:
        with unfinished.open("wb" if temporary else "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk's names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that the new name survives a power cut, if the file system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to the file `path`, whole; raises as `whole_file` does."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to the file `path` as UTF-8, whole, with its line ends as they are; raises as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", errors="replace"))  # a lone surrogate becomes "?", and the rest survives


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write named arrays to the compressed NumPy file `path`, whole; raises as `write_bytes` does."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # takes the arrays for its option allow_pickle
    write_bytes(path, buffer.getvalue())


def lock(descriptor: int, wait: bool = False) -> bool | None:
    """Lock an open file for this process, until it closes the file or ends in any way, killed or not.

    Args:
        descriptor: of the file, open for writing.
        wait: until no other process has the lock.

    Returns:
        Whether this process has the lock now; None if the operating system or the file system has none to give.
    """
    # A lock of the process (POSIX), not of the open file as `flock` has it: workers that outlive a killed run for some
    # seconds have the file open, too.
    if fcntl is None:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return None
    return True


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears at `path` with all that was written in it, or not at all.

    Yields:
        The hidden folder beside it in which to write.

    Raises:
        OSError: if something stands at `path` already, other than an empty folder; or if it cannot be written.
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


_LONGEST = 200  # bytes: file systems allow 255, and a suffix and a number are still to come
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices, to Windows
_UNFIT = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")  # of Unicode's categories


def safe_name(text: str) -> str:
    """A file name, without a suffix, for what is called `text`: it names a plain file of the folder it is put in.

    Names of ordinary files stay as they are. Separators, and what no file name should have (control and format
    characters, halves of characters, ``<>:"|?*``), become "_"; the name neither begins with a dot, nor ends in a dot or
    a space, nor is a device's; it is cut where it is too long, and then ends in a hash of the whole.
    """
    whole = unicodedata.normalize("NFC", text)
    name = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c) in _UNFIT else c for c in whole)
    name = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), name).rstrip(". ") or "_"
    if len(name.encode()) > _LONGEST:
        digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:12]
        name = f"{name.encode()[: _LONGEST - 13].decode(errors='ignore')}-{digest}"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def names_apart(paths: Sequence[str]) -> list[str]:
    """The stem of each path; where different paths have the same, as much of the path as tells them apart."""
    whole = {path: PurePosixPath(path) for path in dict.fromkeys(paths)}
    stems = Counter(path.stem for path in whole.values())
    longer = Counter(path.parent / path.stem for path in whole.values())
    names = {}
    for name, path in whole.items():
        without = path.parent / path.stem
        names[name] = path.stem if stems[path.stem] == 1 else str(without if longer[without] == 1 else path)
    return [names[path] for path in paths]


def safe_names(texts: Iterable[str]) -> list[str]:
    """The `safe_name` of each, with a number behind those that another has had, also where case does not count."""
    taken: set[str] = set()
    names = []
    for text in texts:
        name = first = safe_name(text)
        number = 2
        while name.casefold() in taken:
            name, number = f"{first}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def write_folder(path: str | os.PathLike[str], files: Iterable[tuple[str, bytes]], own: str) -> None:
    """Write files (name, content) as the folder `path`, whole: it holds them and nothing else. Its parent must exist.

    A folder of that name that an earlier call has written is replaced; a reader may find none for a moment, never a
    part of one.

    Args:
        path: of the folder.
        files: to write.
        own: a regular expression that the names of all such files match; a folder that holds others is the user's.

    Raises:
        InputError: if something else than an earlier call's folder stands there; see `require_own`.
        OSError: as `write_bytes` does. What stood at `path` is then as it was.
    """
    path = Path(path)
    require_own(path, own)
    old = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with new_folder(path) as folder:
            for name, data in files:
                write_bytes(folder / name, data)
            if path.exists():
                path.rename(old)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def require_own(folder: Path, own: str) -> None:
    """Check that a folder, if it is there, can be replaced without loss: all in it are files of names that match `own`.

    Raises:
        InputError: if it is a link or a file, or holds anything else, or a declared input.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is not from an earlier run; move it away, or choose another --output")
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() or not re.fullmatch(own, path.name):
            raise InputError(f"{path} is not from an earlier run; move it away, or choose another --output")
        _require_no_input(path)


def local_path(word: str) -> str:
    """A word of a command line in which a `file://` address, as file managers hand it over, is the path."""
    found = re.fullmatch(r"(|-[\w.-]+=|[^/]*=)file:(?://(?:localhost)?)?(/.*)", word, re.DOTALL)
    return found[1] + urllib.parse.unquote(found[2]) if found else word
