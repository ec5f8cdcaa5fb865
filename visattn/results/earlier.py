"""Files that an earlier run left in a folder of results, the only ones that a new run may replace."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from visattn.errors import InputError
from visattn.files import require_free


def written_before(listing: Path) -> set[str]:
    """The files, as paths below its folder, that a list of results names; none if there is no list.

    Raises:
        InputError: if a file of that name is no list of results, and so is the user's.
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
    """The files that an entry of a list of results names, those of further captions too."""
    named = entry["files"] if "files" in entry else [entry["overlay"]]
    return [
        *map(str, named),
        *(str(name) for caption in entry.get("captions", []) for name in caption.get("files", [])),
    ]


def require_room(listing: Path, outputs: Iterable[str], pictures: Sequence[Path]) -> None:
    """Check that a run's results can be written without loss, before any is computed.

    Into a folder of its own a run may write as it likes; beside the pictures only what an earlier run listed is
    replaced, since `holiday.png` there may well be another version of `holiday.jpg`.

    Args:
        listing: the list of results to be; its folder is that of the outputs.
        outputs: the other files and folders to be, as paths below it.
        pictures: that the results are of.

    Raises:
        InputError: if a file would be lost: a picture, another input, or one that no run has written.
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
