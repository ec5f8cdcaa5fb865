"""Caption files: the Karpathy splits' layout and COCO's, read into one form."""

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from visattn.errors import InputError
from visattn.vocabulary import tokenize

Layout = Literal["auto", "karpathy", "coco"]

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
        InputError: where the file is missing, is not JSON or of another layout, or an image stands in it twice.
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
        annotations = list({"karpathy": _karpathy, "coco": _coco}[layout](content))
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not in the {layout} layout of captions: {what}") from error
    twice = [name for name, count in Counter(a.id for a in annotations).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has {len(twice)} image ids more than once, such as {twice[0]}; give each image one entry"
        )
    return _captioned(path, annotations)


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


def _karpathy(content: dict[str, Any]) -> Iterator[Annotation]:
    for image in content["images"]:
        captions = [_words(sentence.get("tokens"), sentence.get("raw")) for sentence in image["sentences"]]
        file = Path(image.get("filepath", ""), image["filename"])
        yield Annotation(str(image.get("cocoid", file.stem)), file.as_posix(), image.get("split"), captions)


def _coco(content: dict[str, Any]) -> Iterator[Annotation]:
    captions: dict[Any, list[list[str]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["image_id"] in captions:  # a part of COCO may come with the captions of the whole
            captions[annotation["image_id"]].append(_words(None, annotation["caption"]))
    for image in content["images"]:
        yield Annotation(str(image["id"]), image["file_name"], None, captions[image["id"]])


def _words(tokens: Any, raw: Any) -> list[str]:
    """The words of one caption; none where it has none, or is no text."""
    if isinstance(tokens, list):
        return [unicodedata.normalize("NFC", token) for token in tokens if isinstance(token, str) and token.strip()]
    return tokenize(raw) if isinstance(raw, str) else []


def _captioned(path: Path, annotations: list[Annotation]) -> list[Annotation]:
    """Leave out empty captions, and images without any."""
    full = [a._replace(captions=[caption for caption in a.captions if caption]) for a in annotations]
    empty = sum(len(a.captions) for a in annotations) - sum(len(a.captions) for a in full)
    kept = [a for a in full if a.captions]
    if empty or len(kept) < len(full):
        log.warning(
            "%s: left out %d captions without words, %d images without captions", path, empty, len(full) - len(kept)
        )
    return kept
