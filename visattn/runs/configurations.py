"""Included configurations, given by name: `--config attention/hard`."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import visattn
from visattn.errors import InputError

_PACKAGE = Path(visattn.__file__).parent
FOLDER = next((f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE / "configs")
"""Within the package where it is installed from a wheel, beside it in a checkout."""


def packaged(name: str) -> Path:
    """The file of a configuration that comes with visattn.

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
    """A command line in which names of configurations are their files; words after `--config` that are files stay.

    Raises:
        InputError: if a word that should name a configuration does not.
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
