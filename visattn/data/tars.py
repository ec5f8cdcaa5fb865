"""What a shard says: a tar file as img2dataset writes it, one sample's files after the other's.

A shard holds `000012.jpg`, `000012.txt` and `000012.json`. What belongs to one sample is decided by the `webdataset`
library.
"""

import contextlib
import io
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visattn.errors import InputError
from visattn.vocabulary import tokenize

PICTURES = ("jpg", "jpeg", "png", "webp")  # suffixes in a shard, the first that a sample has
_TEXTS = ("txt", "json")
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset passes over

RawSample = dict[str, Any]
"""A sample's files by their suffixes, undecoded, with its key as `__key__` and its shard as `__url__`."""


def texts(path: Path) -> Iterator[RawSample]:
    """The samples of a shard, the pictures empty, in its order.

    Raises:
        InputError: where it is no tar file, is cut off, or has a file twice.
    """
    with _shard_errors(path):
        yield from webdataset().tariterators.group_by_keys(_text_files(path))


def samples(path: Path, start: int, stop: int) -> Iterator[RawSample]:
    """The whole samples from number `start` on, as many as there are before `stop`.

    Raises:
        InputError: where it is no tar file, or is cut off or has a file twice before `stop`.
    """
    with path.open("rb") as file, _shard_errors(path):
        # Not webdataset's own opener: it starts a program for a file whose name begins with "pipe:".
        files = webdataset().tariterators.tar_file_expander([{"url": str(path), "stream": file}])
        yield from itertools.islice(webdataset().tariterators.group_by_keys(files), start, stop)


def picture_of(sample: RawSample, name: str) -> bytes:
    """The picture's file.

    Raises:
        InputError: where the sample, called `name`, has none.
    """
    content = next((sample[suffix] for suffix in PICTURES if suffix in sample), None)
    if content is None:
        raise InputError(f"{name} has no picture ({', '.join(PICTURES)})")
    return content


def captions_of(sample: RawSample, where: str) -> list[list[str]]:
    """The tokenised captions of a sample, those with a word: of its .txt, or under a key of its .json."""
    try:
        if where == "txt":
            said: Any = sample["txt"].decode("utf-8")
        else:
            said = json.loads(sample["json"])[where]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    said = said if isinstance(said, list) else [said]
    return [words for text in said if isinstance(text, str) and (words := tokenize(text))]


def _text_files(path: Path) -> Iterator[dict[str, Any]]:
    """The files of a shard as webdataset has them, but the pictures' bytes are skipped over, not read."""
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.isreg() and not _META.match(member.name):
                text = member.name.lower().endswith(_TEXTS)
                yield {"fname": member.name, "data": tar.extractfile(member).read() if text else b"", "__url__": path}
            tar.members = []  # else it would remember every header
        # To `tarfile`, one that was cut off between two files has just ended; a whole one ends in empty blocks.
        if isinstance(tar.fileobj, io.BufferedReader) and path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without an end")
        yield {}  # the end of a shard


@contextlib.contextmanager
def _shard_errors(path: Path) -> Iterator[None]:
    """Whatever a damaged tar file makes its readers trip over, as a sentence that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        why = error.args[0] if error.args else type(error).__name__
        raise InputError(f"{path} cannot be read as a shard ({why}); is it damaged or cut off?") from error


def webdataset() -> Any:
    """The library.

    Raises:
        InputError: where it is not installed.
    """
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise InputError(
            "shards are read by the package webdataset, which is not installed: pip install 'visattn[webdataset]'"
        ) from error
    return webdataset
