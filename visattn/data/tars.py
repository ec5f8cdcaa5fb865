"""Reading shards: tar files as written by img2dataset, in which a sample's files are consecutive.

A shard contains `000012.jpg`, `000012.txt` and `000012.json`. The `webdataset` library groups files into samples.
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

from visattn.errors import InputError, install
from visattn.images.reading import SUFFIXES
from visattn.vocabulary import Tokens

# Suffixes of images in a shard; the first one in a sample is used.
PICTURES = ("jpg", "jpeg", "png", "webp", *sorted(s[1:] for s in SUFFIXES - {".jpg", ".jpeg", ".png", ".webp"}))
_TEXTS = ("txt", "json")
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset ignores

Shard = Path | str
"""A tar file, or a command that writes one to its output, as webdataset has it: `pipe:aws s3 cp s3://bucket/0.tar -`"""

PIPE = "pipe:"

RawSample = dict[str, Any]
"""A sample's files by their suffixes, undecoded, with its key as `__key__` and its shard as `__url__`."""


def shards_of(root: Path, pattern: str, option: str) -> list[Shard]:
    """The shards that a pattern names: files, or commands as they are.

    Args:
        root: folder that file names are relative to.
        pattern: with ``*``, or ranges in braces, all of whose files must exist; or ``pipe:`` and a command.
        option: the option that holds the pattern, for messages.

    Raises:
        InputError: if there are none, or one of a range is missing.
    """
    found: list[Shard] = []
    for name in webdataset().shardlists.expand_urls(pattern):
        anchor = Path(name).anchor
        matches = re.search(r"[*?\[]", name)
        here = sorted(Path(anchor or root).glob(name.removeprefix(anchor))) if matches else [root / name]
        if not name.startswith(PIPE) and not (here and here[0].is_file()):
            raise InputError(f"{root / name}: no such shard (option {option})")
        found += [name] if name.startswith(PIPE) else here
    return found


def texts(shard: Shard) -> Iterator[RawSample]:
    """The samples of a shard, in order, with empty images.

    Raises:
        InputError: if it is not a tar file, is truncated, or contains a file twice; or if a command fails.
    """
    with _shard_errors(shard), _opened(shard) as file:
        yield from webdataset().tariterators.group_by_keys(_text_files(shard, file))


def samples(shard: Shard, start: int, stop: int | None) -> Iterator[RawSample]:
    """The samples from number `start` to `stop` (exclusive; None: the end), as far as there are any.

    Raises:
        InputError: if it is not a tar file, or is truncated or contains a file twice before `stop`; or if a command
            fails before that.
    """
    with _shard_errors(shard), _opened(shard) as file:
        files = webdataset().tariterators.tar_file_expander([{"url": str(shard), "stream": file}])
        yield from itertools.islice(webdataset().tariterators.group_by_keys(files), start, stop)


@contextlib.contextmanager
def _opened(shard: Shard) -> Iterator[Any]:
    """The bytes of a shard. Only what is stated as a command is run, never a file that is called like one."""
    if isinstance(shard, Path):
        with shard.open("rb") as file:
            yield file
        return
    pipe = webdataset().gopen(shard)
    pipe.ignore_errors = True  # a command that is not read to its end is stopped by its closed output
    at_end = False
    try:
        try:
            yield pipe
        except (tarfile.TarError, OSError, EOFError, ValueError):  # perhaps because the command has failed
            at_end = _ends(pipe.stream)
            raise
        at_end = _ends(pipe.stream)
    finally:
        pipe.close()
        if at_end and pipe.status:
            raise InputError(f"the command of the shard {shard} failed with status {pipe.status}")


def _ends(stream: Any) -> bool:
    """Whether nothing but the padding of a tar file is left."""
    return len(stream.read(2 * tarfile.RECORDSIZE)) < 2 * tarfile.RECORDSIZE


def picture_of(sample: RawSample, name: str) -> bytes:
    """The bytes of the sample's image file.

    Raises:
        InputError: if the sample, called `name`, has none.
    """
    content = next((sample[suffix] for suffix in PICTURES if suffix in sample), None)
    if content is None:
        raise InputError(f"{name} has no image ({', '.join(PICTURES)}); {_has(sample, PICTURES)}")
    return content


class Said(NamedTuple):
    """The captions of a sample.

    Attributes:
        captions: tokenised captions with at least one word.
        lost: reasons why the others are left out, one for each.
    """

    captions: list[list[str]]
    lost: list[str]


def captions_of(sample: RawSample, where: str, tokens: Tokens) -> Said:
    """The captions in a sample's .txt, or under a key of its .json."""
    suffix = "txt" if where == "txt" else "json"
    if suffix not in sample:
        return Said([], [f"has no .{suffix}; {_has(sample, (suffix,))}"])
    try:
        content = sample[suffix].decode("utf-8-sig")
    except UnicodeDecodeError:
        return Said([], [f"has a .{suffix} that is not UTF-8; convert it, for example with iconv -f latin1 -t utf-8"])
    if where == "txt":
        said: Any = content
    else:
        try:
            described = json.loads(content)
        except (ValueError, RecursionError):
            return Said([], ["has an invalid .json"])
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
            lost.append("has a caption without words" if isinstance(text, str) else "has a caption that is not text")
    return Said(captions, lost if captions or lost else ["has an empty list of captions"])


def _has(sample: RawSample, wanted: tuple[str, ...]) -> str:
    """The suffixes that a sample has instead of the wanted ones, and the usual cause: dots in names."""
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


def _text_files(shard: Shard, file: Any) -> Iterator[dict[str, Any]]:
    """The files of a shard, as from webdataset, but without reading the images of a file."""
    with tarfile.open(fileobj=file, mode="r:*" if isinstance(shard, Path) else "r|*") as tar:
        for member in tar:
            if member.isreg() and not _META.match(member.name):
                text = member.name.lower().endswith(_TEXTS)
                yield {"fname": member.name, "data": tar.extractfile(member).read() if text else b"", "__url__": shard}
            tar.members = []  # otherwise it keeps all headers in memory
        # `tarfile` does not notice truncation between two files; a complete file ends with empty blocks.
        read = None
        if not isinstance(shard, Path):
            read = tar.fileobj.tell()
        elif isinstance(tar.fileobj, io.BufferedReader):
            read = shard.stat().st_size
        if read is not None and read < tar.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")
        yield {}  # the end of a shard


@contextlib.contextmanager
def _shard_errors(shard: Shard) -> Iterator[None]:
    """Convert the errors that damaged tar files raise to an `InputError` that names the file."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        why = error.args[0] if error.args else type(error).__name__
        raise InputError(f"{shard} cannot be read as a shard ({why}); it may be damaged or truncated") from error


def webdataset() -> Any:
    """Import the library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise InputError(
            f"reading shards needs the package webdataset, which is not installed: {install('webdataset')}"
        ) from error
    return webdataset
