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
import json
import math
import os
import re
import secrets
import shutil
import stat
import unicodedata
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from visattn.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class _Inputs:
    """Files that must not be overwritten, identified by inode where the file system has inodes, and by path."""

    def __init__(self) -> None:
        self._new: list[Iterable[str | os.PathLike[str] | None]] = []
        self._known: dict[object, Path] = {}

    def add(self, paths: Iterable[str | os.PathLike[str] | None]) -> None:
        self._new.append(paths)  # examined only when a file is first overwritten: a data set has 100,000 images

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
    """A context (or decorator) within which files declared with `protect` are not overwritten."""
    inputs = _Inputs()
    _guards.append(inputs)
    try:
        yield
    finally:
        _guards.remove(inputs)


def protect(paths: Iterable[str | os.PathLike[str] | None]) -> None:
    """Declare inputs, so that no function of this module overwrites them until the innermost `guarded` ends.

    Args:
        paths: of files; None and paths that are not files are ignored. Generators are consumed lazily.
    """
    if _guards:
        _guards[-1].add(paths)


def require_free(paths: Iterable[str | os.PathLike[str]], option: str = "--output") -> None:
    """Check that these paths can be written without losing data; for a folder, that all files in it may be replaced.

    Args:
            paths: of outputs, which need not exist.
            option: the option to change, for the message.

    Raises:
        InputError: if one is a declared input, under any spelling or link, or is not a regular file.
    """
    for path in map(Path, paths):
        for file in path.rglob("*") if path.is_dir() else (path,):
            _require_no_input(file, option)


def require_file(path: str | os.PathLike[str], option: str = "--output") -> None:
    """`require_free` for one output file; creates its folder.

    Raises:
        InputError: as `require_free`, and if the path is a folder.
        OSError: if its folder cannot be created.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name a file with {option}")
    require_free([path], option)
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def require_empty(folder: Path) -> None:
    """Check that an output folder is missing or empty.

    Raises:
        InputError: if it holds anything.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; remove it, or choose another with --output")


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
    """A file to write to, which is renamed to `path` when complete; its folder must exist.

    Args:
        path: of the finished file.
        temporary: its name until then, in the same folder, if it must be known; a leftover of an earlier attempt is
            overwritten. By default it is random.

    Raises:
        InputError: if `path` is a declared input, a device or a pipe; see `protect`.
        OSError: if the folder is missing, read-only or full. An existing file at `path` is then unchanged.
    """
    path = Path(path)
    _require_no_input(path)
    # Not derived from the name, which may have the maximum length; not `tempfile`, whose files only the owner can read.
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
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk's error names no file
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
    """Write `data` to the file `path` atomically; raises as `whole_file` does."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to the file `path` as UTF-8, atomically, without changing line ends; raises as `whole_file` does."""
    write_bytes(path, text.encode("utf-8", errors="replace"))  # lone surrogates become "?"


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write `data` to the JSON file `path`, atomically; raises as `whole_file` does.

    NaN and infinity, which JSON does not have, become null.
    """
    try:
        text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, text)


def _finite(data: Any) -> Any:
    """Plain values with None in place of numbers that are not finite."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write named arrays to the compressed NumPy file `path`, atomically; raises as `whole_file` does."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # takes the arrays for its option allow_pickle
    write_bytes(path, buffer.getvalue())


def lock(descriptor: int, wait: bool = False) -> bool | None:
    """Lock an open file for this process, until it closes the file or ends, even if killed.

    Args:
        descriptor: of the file, open for writing.
        wait: wait until no other process has the lock.

    Returns:
        Whether this process has the lock; None if the operating system or the file system does not support locks.
    """
    # A POSIX lock of the process, not of the open file as with `flock`: workers that outlive a killed run for some
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
    """A folder that appears at `path` complete, or not at all.

    Yields:
        A hidden folder next to it to write to.

    Raises:
        OSError: if `path` exists and is not an empty folder, or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()  # if empty; some systems cannot rename to an existing folder
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


_LONGEST = 200  # bytes: file systems allow 255, including a suffix and a number
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names on Windows
_UNFIT = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")  # Unicode categories


def safe_name(text: str) -> str:
    """A safe file name, without a suffix, derived from `text`.

    Ordinary names are unchanged. Separators and unsuitable characters (control and format characters, lone surrogates,
    ``<>:"|?*``) become "_". The name does not begin with a dot, end in a dot or a space, or equal a device's name. A
    name that is too long is cut, and ends in a hash of the whole.
    """
    whole = unicodedata.normalize("NFC", text)
    name = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c) in _UNFIT else c for c in whole)
    name = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), name).rstrip(". ") or "_"
    if len(name.encode()) > _LONGEST:
        digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:12]
        name = f"{name.encode()[: _LONGEST - 13].decode(errors='ignore')}-{digest}"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def names_apart(paths: Sequence[str]) -> list[str]:
    """The stem of each path, or, if different paths share it, the path as far as needed to distinguish them."""
    whole = {path: PurePosixPath(path) for path in dict.fromkeys(paths)}
    stems = Counter(path.stem for path in whole.values())
    longer = Counter(path.parent / path.stem for path in whole.values())
    names = {}
    for name, path in whole.items():
        without = path.parent / path.stem
        names[name] = path.stem if stems[path.stem] == 1 else str(without if longer[without] == 1 else path)
    return [names[path] for path in paths]


def safe_names(texts: Iterable[str]) -> list[str]:
    """The `safe_name` of each, with a number appended where it would repeat, ignoring case."""
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
    """Write files (name, content) as the folder `path`, which then contains nothing else. Its parent must exist.

    A folder written by an earlier call is replaced; readers may find no folder for a moment, but never a partial one.

    Args:
        path: of the folder.
        files: to write.
        own: a regular expression that matches the names of all such files; a folder with others is the user's.

    Raises:
        InputError: if `path` exists and was not written by an earlier call; see `require_own`.
        OSError: as `write_bytes`. An existing folder at `path` is then unchanged.
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
    """Check that a folder, if it exists, can be replaced: it contains only files whose names match `own`.

    Raises:
        InputError: if it is a link or a file, or contains anything else, or a declared input.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is not from an earlier run; move it away, or choose another --output")
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() or not re.fullmatch(own, path.name):
            raise InputError(f"{path} is not from an earlier run; move it away, or choose another --output")
        _require_no_input(path)


def read_json(path: Path, what: str = "") -> Any:
    """The content of a JSON file; `what` it is, such as "annotation file", is for the message.

    Raises:
        InputError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such {what or 'file'}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}); check that it is the {what or 'right file'}"
        ) from error


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` file by name, by default all; nothing is unpickled.

    Raises:
        OSError: if the file cannot be read.
        ValueError, KeyError, zipfile.BadZipFile and others of NumPy's: if it is another kind of file, or damaged.
    """
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):  # NumPy would advise to unpickle it
            raise zipfile.BadZipFile("it is not a .npz file, or is cut off")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in (file.files if names is None else names)}


def named_path(argument: str) -> tuple[str, Path]:
    """The name, or "", and the path of a command-line argument NAME=PATH or PATH."""
    name, place = ("", argument) if "=" not in argument or Path(argument).exists() else argument.split("=", 1)
    return name, Path(place)


def local_path(word: str) -> str:
    """A command-line argument with a `file://` URL, as file managers pass it, replaced by its path."""
    found = re.fullmatch(r"(|-[\w.-]+=|[^/]*=)file:(?://(?:localhost)?)?(/.*)", word, re.DOTALL)
    return found[1] + urllib.parse.unquote(found[2]) if found else word
