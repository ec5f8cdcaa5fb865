"""Downloads of large files: resumed, verified with a checksum, and unpacked completely."""

import hashlib
import http.client
import logging
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from visattn.errors import InputError

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_SILENCE = 60.0  # timeout in seconds
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(url: str, path: Path, md5: str | None = None, attempts: int = 8, pause: float = 1.0) -> None:
    """Download a file atomically.

    Partial data are kept in `<path>.part`, and the download is resumed if the server supports it, now or in a later
    call. The file is renamed when its size and checksum are right; an existing file is not downloaded again.

    Args:
        url: http, https or file.
        path: of the file; its folder must exist.
        md5: its MD5 checksum in hexadecimal, or None if none is published.
        attempts: number of consecutive attempts without progress before giving up.
        pause: seconds before the next attempt; doubled after each one without progress.

    Raises:
        InputError: if the server refuses, the connection fails for good, or the checksum is wrong. Partial data are
            kept, unless the checksum is wrong.
    """
    part = path.with_name(path.name + ".part")
    fruitless = 0
    while not path.exists():
        had = _size(part)
        try:
            _fetch(url, part, had)
        except _BROKEN as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise InputError(f"{url} cannot be downloaded: HTTP {error.code} {error.reason}") from error
            fruitless = 0 if _size(part) > had else fruitless + 1
            if fruitless == attempts:
                raise InputError(
                    f"{url} cannot be downloaded ({error}); {_size(part):,} bytes are in {part}: "
                    "run this again to resume"
                ) from error
            log.warning("%s was interrupted at %s bytes (%s); resuming", url, f"{_size(part):,}", error)
            time.sleep(pause * 2 ** max(0, fruitless - 1))
            continue
        if md5 is not None and (found := _md5(part)) != md5:
            part.unlink()
            raise InputError(
                f"{url} arrived damaged: its MD5 sum is {found}, not {md5}; it was deleted, download it again"
            )
        part.replace(path)


def _fetch(url: str, part: Path, had: int) -> None:
    """Append the data after the first `had` bytes to `part`, or everything if the server does not support ranges."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        response = urllib.request.urlopen(request, timeout=_SILENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(had):
            return
        part.unlink()
        raise ConnectionError(f"{part} was not part of this file") from error
    with response:
        goes_on = response.status == 206
        start = had if goes_on else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with (
            part.open("ab" if goes_on else "wb") as file,
            tqdm(total=total, initial=start, desc=url.rpartition("/")[2], unit="B", unit_scale=True) as bar,
        ):
            while block := response.read(_CHUNK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) != total:  # `read` of a broken connection just ends
        raise ConnectionError(f"{_size(part):,} of {total:,} bytes")


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None]) -> int:
    """Unpack a zip file. Files are written atomically; existing files of the right size are kept.

    Args:
        archive: the zip file.
        folder: to unpack into; created if missing.
        place: maps a member's name to a path in the folder, or to None to skip it.

    Returns:
        The number of unpacked files, including existing ones.

    Raises:
        InputError: if the archive is damaged, or a file would be written outside the folder.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            wanted = [(m, place(m.filename)) for m in members.infolist() if not m.is_dir()]
            wanted = [(member, name) for member, name in wanted if name is not None]
            for member, name in tqdm(wanted, desc=f"Unpacking {archive.name}", unit="file"):
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise InputError(f"{archive} has a file {name}, which would be written outside the folder {folder}")
                path = folder / name
                if path.is_file() and path.stat().st_size == member.file_size:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.part")
                with members.open(member) as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)  # verifies the archive's checksum
                temporary.replace(path)
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{archive} is damaged ({error}); delete it and run this again") from error
    return len(wanted)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    with (
        path.open("rb") as file,
        tqdm(total=_size(path), desc=f"Checking {path.stem}", unit="B", unit_scale=True) as bar,
    ):
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(_CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
