"""The description of an exported model, `model.json`: its keys, and the checksums of the folder's other files."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from visattn.errors import InputError
from visattn.files import protect
from visattn.images import Fit
from visattn.vocabulary import Words

FORMAT = 1
EncoderWeights = Literal["file", "pretrained"]
DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"


def read_description(folder: Path, *kinds: str) -> dict[str, Any]:
    """Read `model.json`, and check its keys and their types; it and the files that it names are inputs from then on.

    Args:
        folder: the folder.
        kinds: the allowed kinds of model; by default all.

    Raises:
        InputError: if it is missing or damaged, or of another kind or format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(f"there is no {path}; visattn export writes such a folder from a checkpoint")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {str(error)[:200]}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}; export the model again with this version of visattn")
    kind = str(described.get("kind"))
    if kind not in (kinds or _OF_KIND):
        needed = " or ".join(repr(one) for one in kinds or _OF_KIND)
        raise InputError(f"{path} describes a {kind[:40]!r}, but a {needed} is needed here")
    described = _ABSENT[kind] | described
    expected = _COMMON | _OF_KIND[kind]
    for name in [*(n for n in expected if n not in described), *(n for n in described if n not in expected)]:
        raise InputError(f"{path} has {'no' if name in expected else 'an unknown'} key {name[:80]!r}")
    for name, (check, what) in expected.items():
        if not check(described[name]):
            raise InputError(f"{path}: {name} must be {what}")
    protect([path, *(folder / name for name in described["files"])])
    return described


def read_file(folder: Path, name: str, described: dict[str, Any]) -> bytes:
    """Read a file of the folder, and check its checksum.

    Raises:
        InputError: if the export has no such file, it is missing, or its checksum differs.
    """
    path = folder / name
    if name not in described["files"]:
        raise InputError(f"{folder} was exported without {name}; export it again with --format both")
    if not path.is_file():
        raise InputError(f"there is no {path}, which {DESCRIPTION} names; copy the whole folder")
    content = path.read_bytes()
    if checksum(content) != described["files"][name]:
        raise InputError(f"{path} ({len(content)} bytes) is not the exported file: its SHA-256 differs; copy it again")
    return content


def checksum(content: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**20


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))


def _are_numbers(count: int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        numbers = isinstance(value, list) and len(value) == count
        return numbers and all(isinstance(v, int | float) and math.isfinite(v) for v in value)

    return check


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(word, str) for word in value)


def _are_sums(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) and len(v) == 64 for v in value.values())


Check = tuple[Callable[[Any], bool], str]  # a check of a value, and what it must be
_COMMON: dict[str, Check] = {
    "format": (lambda v: v == FORMAT, f"{FORMAT}"),
    "visattn": (lambda v: isinstance(v, str), "the version that wrote it"),
    "kind": (lambda v: v in _OF_KIND, "captioner, classifier or glimpses"),
    "image_size": (_is_size, "height and width in pixels"),
    "fit": (lambda v: v in get_args(Fit), f"one of {', '.join(get_args(Fit))}"),
    "mean": (_are_numbers(3), "three numbers"),
    "std": (lambda v: _are_numbers(3)(v) and min(v) > 0, "three numbers above 0"),
    "files": (_are_sums, "the SHA-256 of each file"),
}
_OF_CLASSES: dict[str, Check] = {
    "class_names": (_are_words, "a list of names"),
    "model": (lambda v: isinstance(v, dict), "an object"),
}
_OF_KIND: dict[str, dict[str, Check]] = {
    "captioner": {
        "grid": (_is_size, "height and width in places"),
        "vocabulary": (_are_words, "a list of words"),
        "tokens": (lambda v: isinstance(v, str), "words, characters or the JSON of a tokenizer"),
        "max_length": (_is_whole, "a number of words"),
        "search": (lambda v: v is None or isinstance(v, dict), "null or an object"),
        "no_repeat": (lambda v: v == 0 or _is_whole(v), "a number of words, or 0"),
        "cell_shift": (_are_numbers(2), "two numbers, in pixels"),
        "cell_stride": (_are_numbers(2), "two numbers, in pixels"),
        "cells_see": (lambda v: isinstance(v, list) and all(map(_are_numbers(2), v)), "two corners, in pixels"),
        "encoder_weights": (lambda v: v in get_args(EncoderWeights), f"one of {', '.join(get_args(EncoderWeights))}"),
        "encoder": (lambda v: isinstance(v, dict), "an object"),
        "decoder": (lambda v: isinstance(v, dict), "an object"),
    },
    "classifier": {"grid": (_is_size, "height and width in places"), **_OF_CLASSES},
    "glimpses": _OF_CLASSES,
}
_ABSENT: dict[str, dict[str, Any]] = {
    "captioner": {"tokens": Words.spec, "encoder_weights": "file", "search": None, "no_repeat": 0},
    "classifier": {},
    "glimpses": {},
}  # defaults of optional keys
