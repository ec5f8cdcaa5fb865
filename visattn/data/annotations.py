"""Reading caption files in the Karpathy and COCO formats."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from visattn.data.losses import MAX_LEFT_OUT, LeftOut
from visattn.errors import InputError
from visattn.files import names_apart, read_json
from visattn.vocabulary import Tokens, Words, tokens_of

Layout = Literal["auto", "karpathy", "coco"]
SPLITS = (None, "train", "restval", "val", "test")


class Annotation(NamedTuple):
    """An image in a caption file.

    Attributes:
        id: COCO's id of the image as text, if the file has it; otherwise the file name without its suffix, with folder
            or suffix where names would repeat.
        file: the image file, relative to the image folder.
        split: "train", "restval", "val" or "test"; None if the file has no splits.
        captions: tokenised captions, at least one, each with at least one word.
    """

    id: str
    file: str
    split: str | None
    captions: list[list[str]]


class Entry(NamedTuple):
    """An image as it is in a caption file, including faulty captions.

    Attributes:
        id: see `Annotation`.
        file: see `Annotation`.
        split: see `Annotation`.
        captions: for each caption its raw value, usually text, and its words, possibly none.
    """

    id: str
    file: str
    split: str | None
    captions: list[tuple[Any, list[str]]]


def read_entries(
    path: Path, layout: Layout = "auto", tokens: str = Words.spec
) -> tuple[list[Entry], list[tuple[str, Any]]]:
    """All entries of a caption file, in order, and (image id, caption) of captions whose image is not in the file.

    Args:
        path: of the JSON file; see `read_annotations` for its layouts.
        layout: "auto" detects the layout from the content.
        tokens: tokenisation; see `visattn.vocabulary.tokens_of`.

    Raises:
        InputError: if the file is missing, is not JSON or has another layout, if an image's path leads out of the image
            folder, or a split is not one of `SPLITS`.
    """
    content = read_json(path, "annotation file")
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
    """The captioned images of a file, in order.

    Two layouts are supported:

    - Karpathy & Fei-Fei 2015: ``{"images": [{"filename", "filepath"?, "split", "cocoid"?, "sentences": [{"tokens",
      "raw"}]}]}``, where a sentence may also be plain text. With word tokenisation the given tokens are used, as in
      published scores; "raw" is tokenised if there are none.
    - COCO: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``. Ids are compared as text:
      9 and "9" are the same image.

    Captions without words or without an image in the file, and then images without captions, are left out, and counted
    in the log by reason.

    Args:
        path: of the JSON file.
        layout: "auto" detects the layout from the content.
        tokens: tokenisation; see `visattn.vocabulary.tokens_of`.
        max_left_out: maximum share of the file's captions that may be left out.

    Raises:
        InputError: as `read_entries`; if an image occurs twice; if too many captions are left out.
    """
    entries, stray = read_entries(path, layout, tokens)
    twice = [name for name, count in Counter(entry.id for entry in entries).items() if count > 1]
    if twice:
        raise InputError(f"{path} has {len(twice)} duplicate image ids, such as {twice[0]}; give each image one entry")
    left_out(entries, stray).report(str(path), max_left_out)
    full = [Annotation(e.id, e.file, e.split, [words for _, words in e.captions if words]) for e in entries]
    return [annotation for annotation in full if annotation.captions]


def left_out(entries: Sequence[Entry], stray: Sequence[tuple[str, Any]] = ()) -> LeftOut:
    """The unusable captions and images in the output of `read_entries`, by reason."""
    lost = LeftOut(sum(len(entry.captions) for entry in entries) + len(stray))
    known = f"the file's images have ids such as {entries[0].id!r}" if entries else "the file has no images"
    for name, _ in stray:
        lost.add(f"belong to no image in the file ({known})", f"image_id {name!r}")
    for entry in entries:
        for raw, words in entry.captions:
            if not words:
                reason = "have no words" if isinstance(raw, str | list) else "are not text"
                lost.add(reason, f"{str(raw)[:40]!r} of image {entry.id}")
        if not any(words for _, words in entry.captions):
            lost.add_image("have no captions", f"{entry.id} ({entry.file})")
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
    """A caption's raw value and its tokens, from an object with "tokens" or "raw", or from plain text."""
    if not isinstance(said, dict):
        return said, tokens.given(said, None) if isinstance(said, str) else []
    raw, given = said.get("raw"), said.get("tokens")
    if isinstance(given, str):  # words separated by spaces
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
        else:  # a subset of COCO may come with all captions
            stray.append((name, caption))
    files = ((_id(image["id"]), Path(image["file_name"]).as_posix()) for image in content["images"])
    return [Entry(name, file, None, captions[name]) for name, file in files], stray


def _id(value: Any) -> str:
    """An image's id as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"the image id {value!r} is neither an integer nor text")
    return str(value)
