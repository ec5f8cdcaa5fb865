"""The files of an earlier run in a result folder: the only files that a new run may replace."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from visattn.errors import InputError
from visattn.files import require_free


def written_before(listing: Path) -> set[str]:
    """The files in a result list, as paths relative to its folder; empty if there is no list.

    Raises:
        InputError: if the file is not a result list, so it may be the user's.
    """
    if not listing.exists():
        return set()
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        return {name for entry in entries for name in names_of(entry)}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{listing} is not a list of results and would be overwritten; choose another --output"
        ) from error


def names_of(entry: dict[str, Any]) -> list[str]:
    """The files in an entry of a result list, including those of further captions."""
    named = entry["files"] if "files" in entry else [entry["overlay"]]
    return [
        *map(str, named),
        *(str(name) for caption in entry.get("captions", []) for name in caption.get("files", [])),
    ]


def check_overwriting(listing: Path, outputs: Iterable[str], pictures: Sequence[Path]) -> None:
    """Check that a run's results can be written without losing data, before any is computed.

    In the image folder only files listed by an earlier run are replaced, since `holiday.png` there may be another
    version of `holiday.jpg`. In other folders any output may be replaced.

    Args:
        listing: path of the result list; outputs go to the same folder.
        outputs: the other files and folders, as paths relative to it.
        pictures: the images of the results.

    Raises:
        InputError: if an image, another input or a file not written by a run would be overwritten.
    """
    folder = listing.parent
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --output names a folder")
    outputs = list(outputs)
    require_free([listing, *(folder / name for name in outputs)])
    before = written_before(listing)
    if folder.exists() and any(folder.samefile(parent) for parent in {path.parent for path in pictures}):
        for name in outputs:
            if name not in before and (folder / name).exists():
                raise InputError(
                    f"{folder / name} already exists and is not from an earlier run; choose an --output other than the "
                    "image folder"
                )
