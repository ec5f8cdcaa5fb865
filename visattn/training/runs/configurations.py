"""Included configurations, given by name: `--config attention/hard`."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import visattn
from visattn.errors import InputError

_PACKAGE = Path(visattn.__file__).parent
FOLDER = next((f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE / "configs")
"""Inside the package when installed from a wheel, next to it in a checkout."""


def packaged(name: str) -> Path:
    """The file of an included configuration.

    Raises:
        InputError: if there is none of that name.
    """
    short = name.removeprefix("configs/").removesuffix(".yaml")
    path = FOLDER / f"{short}.yaml"
    if not path.is_file():
        names = sorted(str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob("*.yaml"))
        near = get_close_matches(short, names, n=3, cutoff=0.4) or names
        raise InputError(f"--config {name} is neither a file nor an included configuration, such as {', '.join(near)}")
    return path


def resolved(words: Sequence[str]) -> list[str]:
    """Replace names of included configurations after `--config` by their files; existing files are kept.

    Raises:
        InputError: if there is neither such a file nor such a configuration.
    """
    found, expected = [], False
    for word in words:
        option, equals, value = word.partition("=")
        if expected:
            word = _file_of(word)
        elif equals and option in ("-c", "--config"):
            word = f"{option}={_file_of(value)}"
        expected = word in ("-c", "--config")
        found.append(word)
    return found


def _file_of(word: str) -> str:
    if word.startswith("-") or Path(word).is_file() or "\n" in word or ":" in word:  # YAML itself is allowed, too
        return word
    return str(packaged(word)) if word.isprintable() and word else word
