"""Reading files of references and candidates as captions by image."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visattn.errors import InputError
from visattn.files import names_apart, read_json

Captions = dict[str, list[str]]  # image id -> its captions
Files = dict[str, str]  # name of an image file, without folders -> image id; only names that occur once


class References(NamedTuple):
    """References read from a file.

    Attributes:
        captions: image id -> its captions, at least one.
        name: of the file, with the splits used.
        bare: number of images without captions, which are left out.
        files: image files -> image ids, as far as they are in the file.
        stray: number of captions without an image in the file, which are left out.
    """

    captions: Captions
    name: str
    bare: int
    files: Files
    stray: int


def read_references(path: Path, split: str, split_asked: bool, tokens_given: bool) -> References:
    """Read the captions of a reference file.

    Args:
        path: COCO's caption file or a Karpathy file.
        split: splits of a Karpathy file, separated by commas.
        split_asked: whether the user gave the split, which COCO files do not have.
        tokens_given: whether to prefer a Karpathy file's tokens to its raw sentences.

    Raises:
        InputError: if the file is missing, has another layout, repeats an image, or has no such split or no captions.
    """
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if split_asked:
            raise InputError(f"{path} is in COCO's layout and has no splits; leave out the split option")
        found, files, stray = coco(content, path)
        name = path.name
    elif isinstance(entries, list) and any(isinstance(entry, dict) and "sentences" in entry for entry in entries):
        (found, files), stray = karpathy(entries, path, split, tokens_given), 0
        name = f"{path.name}[{split}]"
    else:
        raise InputError(
            f"{path} is neither COCO's caption file (images and annotations) nor in the Karpathy layout (images with "
            "sentences); give one of the two"
        )
    captions = {image: several for image, several in found.items() if several}
    if not captions:
        raise InputError(f"{path} has no captions; give a file of references")
    return References(captions, name, len(found) - len(captions), files, stray)


def coco(content: dict[str, Any], path: Path) -> tuple[Captions, Files, int]:
    """The captions of each image, the images' files, and the number of captions without an image in the file."""
    found = [(image_id(entry, "image_id", path), caption(entry, path)) for entry in content["annotations"]]
    images = content.get("images", [{"id": image} for image in dict.fromkeys(image for image, _ in found)])
    if not isinstance(images, list):
        raise InputError(f"{path} is not COCO's caption file: its images are not a list")
    listed = [image_id(entry, "id", path) for entry in images]
    refuse_twice(listed, path, "entries")
    captions: Captions = {image: [] for image in listed}
    stray = 0
    for image, text in found:
        if image in captions:
            captions[image].append(text)
        else:
            stray += 1
    files = [(entry["file_name"], name) for entry, name in zip(images, listed, strict=True) if entry.get("file_name")]
    return captions, _by_file(files), stray


def karpathy(entries: list[Any], path: Path, split: str, tokens_given: bool) -> tuple[Captions, Files]:
    """The captions of each image in these splits, and the images' files."""
    wanted = split.split(",")
    there = Counter(str(entry.get("split")) for entry in entries if isinstance(entry, dict))
    if absent := [name for name in wanted if name not in there]:
        splits = ", ".join(f"{name} ({count})" for name, count in there.items())
        raise InputError(
            f"{path} has no {absent[0]} split; it has {splits}: choose with --split or --frequencies-split"
        )
    found: list[tuple[str, list[str]]] = []
    files: list[tuple[Any, str]] = []
    names = names_apart([_file(entry) for entry in entries])
    for entry, stem in zip(entries, names, strict=True):
        if not isinstance(entry, dict) or not isinstance(entry.get("sentences"), list):
            raise InputError(f"{path} is not in the Karpathy layout: {short(entry)} has no list of sentences")
        if entry.get("split") in wanted:
            key = "cocoid" if "cocoid" in entry else "filename"
            name = image_id(entry, key, path)
            several = [sentence(s, path, tokens_given) for s in entry["sentences"]]
            found.append((name if key == "cocoid" else stem, several))
            files.append((entry.get("filename", ""), found[-1][0]))
    refuse_twice((image for image, _ in found), path, "entries")
    return dict(found), _by_file(files)


def _by_file(files: Sequence[tuple[Any, str]]) -> Files:
    """Image ids by the names of their files, without folders; names of several images are left out."""
    names = [Path(str(file)).name for file, _ in files]
    count = Counter(names)
    return {name: image for name, (_, image) in zip(names, files, strict=True) if count[name] == 1}


def _file(entry: Any) -> str:
    """The image file of an entry, with its folder; ids are as in `visattn.data.annotations`."""
    if not isinstance(entry, dict):
        return ""
    return Path(str(entry.get("filepath") or ""), str(entry.get("filename", ""))).as_posix()


def sentence(entry: Any, path: Path, tokens_given: bool) -> str:
    """A caption of a Karpathy file: plain text, its raw sentence, or its tokens; `tokens_given` prefers tokens."""
    if isinstance(entry, str):
        return entry
    raw, tokens = (entry.get("raw"), entry.get("tokens")) if isinstance(entry, dict) else (None, None)
    joined = " ".join(tokens) if isinstance(tokens, list) and all(isinstance(t, str) for t in tokens) else None
    for text in (joined, raw) if tokens_given else (raw, joined):
        if isinstance(text, str) and text:
            return text
    if raw is None and joined is None:
        raise InputError(f"{path} is not in the Karpathy layout: the sentence {short(entry)} has no raw or tokens")
    return ""


def caption(entry: Any, path: Path) -> str:
    """The text of an entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get("caption"), str):
        raise InputError(
            f"{path}: the caption of {short(entry)} is not text; each entry needs an image_id and a caption"
        )
    return entry["caption"]


def image_id(entry: Any, key: str, path: Path) -> str:
    """The id of an entry's image as text."""
    name = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise InputError(f"{path}: the {key} of {short(entry)} is neither an integer nor text; fix the entry")
    return str(name)


def refuse_twice(images: Iterable[str], path: Path, what: str) -> None:
    """Raise an `InputError` if an image occurs twice."""
    twice = [image for image, count in Counter(images).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has several {what} for {len(twice)} images, such as {some(twice)}; leave one for each"
        )


def short(value: Any) -> str:
    """A value, shortened for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]} …"


def read_candidates(path: Path, files: Files) -> Captions:
    """Read candidates (image id -> a list with its caption) in the format of COCO's results, or of `visattn caption`.

    Args:
        path: the file.
        files: image files of the references -> image ids; the results of `visattn caption` name files.

    Raises:
        InputError: if the file is missing, has another layout, or repeats an image.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(
            f'{path} is not a list of {{"image_id", "caption"}}; give COCO\'s results, or predictions.json or '
            "captions.json of visattn"
        )
    if not entries:
        raise InputError(f"{path} has no candidates; give at least one")
    found = [(_candidate_id(entry, files, path), caption(entry, path)) for entry in entries]
    refuse_twice((image for image, _ in found), path, "candidates")
    return {image: [text] for image, text in found}


def _candidate_id(entry: Any, files: Files, path: Path) -> str:
    """The id of a candidate's image, found by its file if the entry has no id."""
    if isinstance(entry, dict) and "image_id" not in entry and isinstance(entry.get("image"), str):
        name = Path(entry["image"]).name
        return files.get(name, name)
    return image_id(entry, "image_id", path)


def pair(known: References, said: Captions, references: Path, candidates: Path, partial: bool) -> list[str]:
    """The images to score, in the order of the references.

    Raises:
        InputError: if the two files do not match.
    """
    strange = [image for image in said if image not in known.captions]
    if strange:
        raise InputError(
            f"{candidates} has candidates for {len(strange)} images without references in {known.name}, such as "
            f"{some(strange)}; leave them out, or give the right reference file or --split"
        )
    missing = [image for image in known.captions if image not in said]
    if missing and not partial:
        raise InputError(
            f"{candidates} has no candidate for {len(missing)} of the {len(known.captions)} images of {known.name}, "
            f"such as {some(missing)}; add them, or score only the others with --partial"
        )
    scored = [image for image in known.captions if image in said]
    if not scored:
        raise InputError(f"{references} and {candidates} have no images in common")
    return scored


def some(images: Sequence[str]) -> str:
    """The first three ids."""
    return ", ".join(images[:3])
