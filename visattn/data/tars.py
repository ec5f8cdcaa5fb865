"""Reading of shards: tar files as written by img2dataset, with the files of a sample in sequence.

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
from typing import Any, NamedTuple

from visattn.errors import InputError
from visattn.images.reading import SUFFIXES
from visattn.vocabulary import Tokens

# Suffixes in a shard, the first that a sample has.
PICTURES = ("jpg", "jpeg", "png", "webp", *sorted(s[1:] for s in SUFFIXES - {".jpg", ".jpeg", ".png", ".webp"}))
_TEXTS = ("txt", "json")
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset passes over

RawSample = dict[str, Any]
"""A sample's files by their suffixes, undecoded, with its key as `__key__` and its shard as `__url__`."""


def texts(path: Path) -> Iterator[RawSample]:
    """The samples of a shard, the pictures empty, in its order.

    Raises:
        InputError: if it is no tar file, is cut off, or has a file twice.
    """
    with _shard_errors(path):
        yield from webdataset().tariterators.group_by_keys(_text_files(path))


def samples(path: Path, start: int, stop: int) -> Iterator[RawSample]:
    """The whole samples from number `start` on, as many as there are before `stop`.

    Raises:
        InputError: if it is no tar file, or is cut off or has a file twice before `stop`.
    """
    with path.open("rb") as file, _shard_errors(path):
        # Not webdataset's own opener: it starts a program for a file whose name begins with "pipe:".
        files = webdataset().tariterators.tar_file_expander([{"url": str(path), "stream": file}])
        yield from itertools.islice(webdataset().tariterators.group_by_keys(files), start, stop)


def picture_of(sample: RawSample, name: str) -> bytes:
    """The picture's file.

    Raises:
        InputError: if the sample, called `name`, has none.
    """
    content = next((sample[suffix] for suffix in PICTURES if suffix in sample), None)
    if content is None:
        raise InputError(f"{name} has no picture ({', '.join(PICTURES)}); {_has(sample, PICTURES)}")
    return content


class Said(NamedTuple):
    """What a sample says.

    Attributes:
        captions: as tokens, those with any.
        lost: why the others are left out, one reason for each.
    """

    captions: list[list[str]]
    lost: list[str]


def captions_of(sample: RawSample, where: str, tokens: Tokens) -> Said:
    """The captions of a sample: of its .txt, or under a key of its .json."""
    suffix = "txt" if where == "txt" else "json"
    if suffix not in sample:
        return Said([], [f"has no .{suffix}; {_has(sample, (suffix,))}"])
    try:
        content = sample[suffix].decode("utf-8-sig")
    except UnicodeDecodeError:
        return Said([], [f"has a .{suffix} that is not UTF-8; write it anew, such as with iconv -f latin1 -t utf-8"])
    if where == "txt":
        said: Any = content
    else:
        try:
            described = json.loads(content)
        except (ValueError, RecursionError):
            return Said([], ["has a .json that is none"])
        if not isinstance(described, dict) or where not in described:
            keys = ", ".join(map(str, described)) if isinstance(described, dict) else "no keys"
            return Said([], [f"has no '{where}' in its .json; that has {keys[:200]}"])
        said = described[where]
    captions, lost = [], []
    for text in said if isinstance(said, list) else [said]:
        found = tokens.split(text) if isinstance(text, str) else []
        if found:
            captions.append(found)
        else:
            lost.append("has a caption without a word" if isinstance(text, str) else "has a caption that is no text")
    return Said(captions, lost if captions or lost else ["has an empty list of captions"])


def _has(sample: RawSample, wanted: tuple[str, ...]) -> str:
    """What a sample has instead of the suffixes that are wanted, and the usual cause of it: dots."""
    suffixes = [name for name in sample if not name.startswith("__")]
    said = f"it has {', '.join(f'.{suffix}' for suffix in suffixes[:5])}{' …' * (len(suffixes) > 5)}"
    dotted = next((s for s in suffixes if "." in s and s.rpartition(".")[2] in wanted), None)
    if dotted is None:
        return said
    name, last = sample["__key__"].rpartition("/")[2], dotted.rpartition(".")[2]
    return (
        f"{said}: in a shard a sample's name ends at its first dot, and '{name}.{dotted}' is the sample '{name}' with "
        f"the suffix '.{dotted}'; pack the files under names without further dots, such as '{name}.{last}'"
    )


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
        raise InputError(f"{path} cannot be read as a shard ({why}); it may be damaged or truncated") from error


def webdataset() -> Any:
    """The library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise InputError(
            "reading shards needs the package webdataset, which is not installed: pip install 'visattn[webdataset]'"
        ) from error
    return webdataset
