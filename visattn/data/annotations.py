"""Caption files: the Karpathy splits' layout and COCO's, read into one form."""

import json
import logging
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from visattn.errors import InputError
from visattn.vocabulary import clean_words, tokenize

Layout = Literal["auto", "karpathy", "coco"]
SPLITS = (None, "train", "restval", "val", "test")

log = logging.getLogger(__name__)


class Annotation(NamedTuple):
    """An image as a caption file describes it.

    Attributes:
        id: COCO's id of the image where the file gives one, else the file's name without its suffix.
        file: the picture, relative to the folder of images.
        split: "train", "restval", "val" or "test", or None where the file knows no splits.
        captions: tokenised words, at least one caption of at least one word.
    """

    id: str
    file: str
    split: str | None
    captions: list[list[str]]


class Entry(NamedTuple):
    """An image as it stands in a caption file, with whatever is wrong about it.

    Attributes:
        id: see `Annotation`.
        file: see `Annotation`.
        split: see `Annotation`.
        captions: of each caption what the file has for it, mostly text, and its words, none where it has none.
    """

    id: str
    file: str
    split: str | None
    captions: list[tuple[Any, list[str]]]


def read_entries(path: Path, layout: Layout = "auto") -> tuple[list[Entry], int]:
    """All entries of a caption file, in its order, and how many captions belong to no image of it.

    Args:
        path: of the JSON file; see `read_annotations` for its layouts.
        layout: "auto" tells the layout by the content.

    Raises:
        InputError: where the file is missing, is not JSON or of another layout, where a picture's name would lead out
            of the folder of images, or a split is none of `SPLITS`.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); is it the annotation file?") from error
    if layout == "auto":
        layout = _layout(path, content)
    try:
        entries, stray = {"karpathy": _karpathy, "coco": _coco}[layout](content)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not in the {layout} layout of captions: {what}") from error
    for entry in entries:
        parts = PurePosixPath(entry.file.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in entry.file:
            raise InputError(
                f"{path} names the picture {entry.file!r}, which cannot be in the folder of images; "
                "give names relative to it"
            )
        if entry.split not in SPLITS:
            raise InputError(f"{path} has the split {entry.split!r}; known are {', '.join(map(str, SPLITS[1:]))}")
    return entries, stray


def read_annotations(path: Path, layout: Layout = "auto") -> list[Annotation]:
    """The captioned images of a file, in its order.

    Two layouts are known:

    - Karpathy & Fei-Fei 2015: ``{"images": [{"filename", "filepath"?, "split", "cocoid"?, "sentences": [{"tokens",
      "raw"}]}]}``. The given tokens are used, as published scores do; "raw" is tokenised where there are none.
    - COCO: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.

    Captions without a word, and then images without a caption, are left out and counted in the log.

    Args:
        path: of the JSON file.
        layout: "auto" tells the layout by the content.

    Raises:
        InputError: as `read_entries`, and where an image stands in the file twice.
    """
    entries, _ = read_entries(path, layout)
    twice = [name for name, count in Counter(entry.id for entry in entries).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has {len(twice)} image ids more than once, such as {twice[0]}; give each image one entry"
        )
    full = [Annotation(e.id, e.file, e.split, [words for _, words in e.captions if words]) for e in entries]
    empty = sum(len(e.captions) for e in entries) - sum(len(a.captions) for a in full)
    kept = [a for a in full if a.captions]
    if empty or len(kept) < len(full):
        log.warning(
            "%s: left out %d captions without words, %d images without captions", path, empty, len(full) - len(kept)
        )
    return kept


def _layout(path: Path, content: Any) -> Layout:
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        if isinstance(content.get("annotations"), list):
            return "coco"
        if any(isinstance(image, dict) and "sentences" in image for image in content["images"]):
            return "karpathy"
    raise InputError(
        f"{path} is neither in the Karpathy layout (images with sentences) nor in COCO's (images and annotations); "
        "give a caption file of one of the two"
    )


def _karpathy(content: dict[str, Any]) -> tuple[list[Entry], int]:
    entries = []
    for image in content["images"]:
        captions = []
        for sentence in image["sentences"]:
            tokens, raw = sentence.get("tokens"), sentence.get("raw")
            given = isinstance(tokens, list)
            captions.append((tokens if given else raw, clean_words(tokens) if given else _words(raw)))
        file = Path(image.get("filepath", ""), image["filename"])
        entries.append(Entry(str(image.get("cocoid", file.stem)), file.as_posix(), image.get("split"), captions))
    return entries, 0


def _coco(content: dict[str, Any]) -> tuple[list[Entry], int]:
    captions: dict[Any, list[tuple[Any, list[str]]]] = {image["id"]: [] for image in content["images"]}
    stray = 0
    for annotation in content["annotations"]:
        image, caption = annotation["image_id"], annotation["caption"]
        if image in captions:
            captions[image].append((caption, _words(caption)))
        else:  # a part of COCO may come with the captions of the whole
            stray += 1
    files = ((image["id"], Path(image["file_name"]).as_posix()) for image in content["images"])
    return [Entry(str(name), file, None, captions[name]) for name, file in files], stray


def _words(raw: Any) -> list[str]:
    """The words of a caption; none where it is no text."""
    return tokenize(raw) if isinstance(raw, str) else []
