"""Caption files: the Karpathy and COCO formats, read into a common form."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from visattn.data.losses import MAX_LEFT_OUT, LeftOut
from visattn.errors import InputError
from visattn.files import names_apart
from visattn.vocabulary import Tokens, Words, tokens_of

Layout = Literal["auto", "karpathy", "coco"]
SPLITS = (None, "train", "restval", "val", "test")


class Annotation(NamedTuple):
    """An image as a caption file describes it.

    Attributes:
        id: COCO's id of the image where the file gives one, as text, else the file's name without its suffix; where
            two would be the same, with its folder or its suffix.
        file: the picture, relative to the folder of images.
        split: "train", "restval", "val" or "test", or None if the file knows no splits.
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


def read_entries(
    path: Path, layout: Layout = "auto", tokens: str = Words.spec
) -> tuple[list[Entry], list[tuple[str, Any]]]:
    """All entries of a caption file, in its order, and the captions that belong to no image of it, with its id.

    Args:
        path: of the JSON file; see `read_annotations` for its layouts.
        layout: "auto" tells the layout by the content.
        tokens: unit of the captions; see `visattn.vocabulary.tokens_of`.

    Raises:
        InputError: if the file is missing, is not JSON or of another layout, if a picture's name would lead out
            of the folder of images, or a split is none of `SPLITS`.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); check that it is the annotation file") from error
    if layout == "auto":
        layout = _layout(path, content)
    try:
        entries, stray = {"karpathy": _karpathy, "coco": _coco}[layout](content, tokens_of(tokens))
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not in the {layout} layout of captions: {what}") from error
    for entry in entries:
        parts = PurePosixPath(entry.file.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in entry.file:
            raise InputError(
                f"{path} names the image {entry.file!r}, which is outside the image folder; "
                "give names relative to that folder"
            )
        if entry.split not in SPLITS:
            raise InputError(
                f"{path} has the split {entry.split!r}; known splits are {', '.join(map(str, SPLITS[1:]))}"
            )
    return entries, stray


def read_annotations(
    path: Path, layout: Layout = "auto", tokens: str = Words.spec, max_left_out: float = MAX_LEFT_OUT
) -> list[Annotation]:
    """The captioned images of a file, in its order.

    Two layouts are known:

    - Karpathy & Fei-Fei 2015: ``{"images": [{"filename", "filepath"?, "split", "cocoid"?, "sentences": [{"tokens",
      "raw"}]}]}``, where a sentence may also be a plain text. The given tokens are used where captions are made of
      words, as published scores do; "raw" is tokenised if there are none.
    - COCO: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``. Ids are compared as text:
      9 and "9" are the same image.

    Captions without a word, captions of no image and then images without a caption are left out, and counted in the
    log by their reason.

    Args:
        path: of the JSON file.
        layout: "auto" tells the layout by the content.
        tokens: unit of the captions; see `visattn.vocabulary.tokens_of`.
        max_left_out: the share of the file's captions that may be left out.

    Raises:
        InputError: as `read_entries`, if an image occurs twice in the file, and if more captions are left out.
    """
    entries, stray = read_entries(path, layout, tokens)
    twice = [name for name, count in Counter(entry.id for entry in entries).items() if count > 1]
    if twice:
        raise InputError(f"{path} has {len(twice)} duplicate image ids, such as {twice[0]}; give each image one entry")
    left_out(entries, stray).report(str(path), max_left_out)
    full = [Annotation(e.id, e.file, e.split, [words for _, words in e.captions if words]) for e in entries]
    return [annotation for annotation in full if annotation.captions]


def left_out(entries: Sequence[Entry], stray: Sequence[tuple[str, Any]] = ()) -> LeftOut:
    """What of a caption file is of no use, by reason; what `read_entries` gives."""
    lost = LeftOut(sum(len(entry.captions) for entry in entries) + len(stray))
    known = f"the file's images have ids such as {entries[0].id!r}" if entries else "the file has no images"
    for name, _ in stray:
        lost.add(f"are of no image that the file lists ({known})", f"image_id {name!r}")
    for entry in entries:
        for raw, words in entry.captions:
            if not words:
                reason = "have no word" if isinstance(raw, str | list) else "are no text"
                lost.add(reason, f"{str(raw)[:40]!r} of image {entry.id}")
        if not any(words for _, words in entry.captions):
            lost.add_image("have no caption", f"{entry.id} ({entry.file})")
    return lost


def _layout(path: Path, content: Any) -> Layout:
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        if isinstance(content.get("annotations"), list):
            return "coco"
        if any(isinstance(image, dict) and "sentences" in image for image in content["images"]):
            return "karpathy"
    raise InputError(
        f"{path} is neither a Karpathy file (images with sentences) nor a COCO caption file (images and annotations); "
        "give one of the two"
    )


def _karpathy(content: dict[str, Any], tokens: Tokens) -> tuple[list[Entry], list[tuple[str, Any]]]:
    images = content["images"]
    files = [Path(image.get("filepath") or "", image["filename"]).as_posix() for image in images]
    entries = []
    for image, file, name in zip(images, files, names_apart(files), strict=True):
        sentences = image["sentences"]
        captions = [_sentence(said, tokens) for said in (sentences if isinstance(sentences, list) else [sentences])]
        entries.append(Entry(_id(image["cocoid"]) if "cocoid" in image else name, file, image.get("split"), captions))
    return entries, []


def _sentence(said: Any, tokens: Tokens) -> tuple[Any, list[str]]:
    """What the file has for a caption, and its tokens; it is an object with "tokens" or "raw", or a plain text."""
    if not isinstance(said, dict):
        return said, tokens.given(said, None) if isinstance(said, str) else []
    raw, given = said.get("raw"), said.get("tokens")
    if isinstance(given, str):  # words with spaces between
        given = given.split()
    raw, given = raw if isinstance(raw, str) else None, given if isinstance(given, list) else None
    if raw is None and given is None:
        return said.get("raw"), []
    return given if raw is None or given is not None else raw, tokens.given(raw, given)


def _coco(content: dict[str, Any], tokens: Tokens) -> tuple[list[Entry], list[tuple[str, Any]]]:
    captions: dict[str, list[tuple[Any, list[str]]]] = {_id(image["id"]): [] for image in content["images"]}
    stray = []
    for annotation in content["annotations"]:
        name, caption = _id(annotation["image_id"]), annotation["caption"]
        if name in captions:
            captions[name].append((caption, tokens.given(caption, None) if isinstance(caption, str) else []))
        else:  # a part of COCO may come with the captions of the whole
            stray.append((name, caption))
    files = ((_id(image["id"]), Path(image["file_name"]).as_posix()) for image in content["images"])
    return [Entry(name, file, None, captions[name]) for name, file in files], stray


def _id(value: Any) -> str:
    """An image's id as text, whether the file has it as a number or as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"the image id {value!r} is neither an integer nor text")
    return str(value)
