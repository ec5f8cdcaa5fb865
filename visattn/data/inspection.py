"""Data checks: images that cannot be used, and faults in caption files."""

import hashlib
import logging
import multiprocessing
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm import tqdm

from visattn.data.annotations import Entry
from visattn.data.losses import MAX_UNKNOWN, SHOWN, WordCounts, WordLoss, word_losses
from visattn.errors import InputError
from visattn.images.reading import OddSizeError, decode_image
from visattn.vocabulary import Vocabulary

MAX_BAD = 0.01  # share of a data set that may be left out: more is no accident
SMALLEST = 16  # pixels of a side: below it, a picture is a placeholder or a counter's dot
TOO_LONG = 100  # words: the longest captions of Flickr30k and COCO have about 80 and 50

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Fault(NamedTuple):
    """Something wrong.

    Attributes:
        kind: one of `KINDS`.
        where: the picture, relative to the folder of pictures, or the image's id.
        what: more about it; may be empty.
    """

    kind: str
    where: str
    what: str = ""


KINDS = {
    "missing": "pictures that are not there",
    "undecodable": "pictures that cannot be read",
    "odd size": "pictures too large, too small or too long",
    "duplicate picture": "pictures of the same bytes as another",
    "checksum": "pictures that are not as the manifest has them",
    "duplicate id": "image ids that stand twice",
    "captionless": "images without a caption",
    "no text": "captions that are no text",
    "empty caption": "captions without a word",
    "overlong caption": "captions of too many words",
    "stray caption": "captions of no image",
    "lost words": "words that do not reach a model, more than may be",
}


class Picture(NamedTuple):
    """A picture as it was found.

    Attributes:
        fault: what is wrong with it, or None.
        digest: SHA-256 of the file in hexadecimal, or None if there is none.
    """

    fault: Fault | None
    digest: str | None


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str, unit: str = "image"
) -> Iterator[Result]:
    """`function` of each item, in their order, worked out by so many processes (0: by this one), with a progress bar.

    Raises:
        InputError: if one of the processes dies.
    """
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(items), desc=title, unit=unit))
        results: Iterable[Result] = map(function, items)
        if workers:
            # Forked where that can be: a function may hang on a data module and its trainer, which cannot be pickled.
            forked = "fork" in multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("fork" if forked else None)
            pool = ProcessPoolExecutor(workers, context, _keep, (function,))
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(_apply, items, chunksize=16 if len(items) > 256 else 1)
        try:
            for result in results:
                yield result
                bar.update()
        except BrokenProcessPool as error:
            raise InputError("a process that checks the data died; if memory ran out, use fewer workers") from error


_kept: list[Callable[[Any], Any]] = []  # of a process of `in_parallel`, what it is to do


def _keep(function: Callable[[Any], Any]) -> None:
    _kept[:] = [function]
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the threads of the process that was forked are not here, and would be waited for


def _apply(item: Any) -> Any:
    return _kept[0](item)


class _Trial(Generic[Item]):
    """What goes wrong when an item is loaded, or None."""

    def __init__(self, load: Callable[[Item], Any]) -> None:
        self.load = load

    def __call__(self, item: Item) -> str | None:
        try:
            self.load(item)
        except InputError as error:
            return str(error)
        return None


def unusable(load: Callable[[Item], Any], items: Sequence[Item], workers: int = 0) -> list[tuple[Item, str]]:
    """The items that `load` refuses by an `InputError`, with its sentence: loads every one of them."""
    reasons = in_parallel(_Trial(load), items, workers, "Looking through the images")
    return [(item, reason) for item, reason in zip(items, reasons, strict=True) if reason is not None]


def name_bad(bad: Mapping[str, str], name: str) -> None:
    """Write into the log which images of the data set `name` are left out, and why."""
    for why in bad.values():
        log.warning("%s: left out: %s", name, why)


def check_share(bad: Mapping[str, str], total: int, name: str, share: float = MAX_BAD) -> None:
    """Check that few enough images are left out.

    Args:
        bad: why, by the image.
        total: of how many.
        name: of the data set, for the message.
        share: of all that may be left out.

    Raises:
        InputError: if they are too many.
    """
    if len(bad) > share * total:
        image, why = next(iter(bad.items()))
        raise InputError(
            f"{name}: {len(bad)} of {total} images cannot be used, more than {share:.1%}, such as {image} ({why})"
        )


class LookAt:
    """Judges pictures by their names in a folder.

    Args:
        folder: of the pictures.
        checksums: SHA-256 in hexadecimal, by a picture's name; where it has one, the file must have it.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str] | None = None) -> None:
        self.folder, self.checksums = folder, checksums or {}

    def __call__(self, file: str) -> Picture:
        try:
            content = (self.folder / file).read_bytes()
        except FileNotFoundError:
            return Picture(Fault("missing", file), None)
        except OSError as error:
            return Picture(Fault("undecodable", file, str(error)), None)
        digest = hashlib.sha256(content).hexdigest()
        if self.checksums.get(file, digest) != digest:
            return Picture(Fault("checksum", file, f"has {digest}, the manifest {self.checksums[file]}"), digest)
        try:
            image = decode_image(content, file)
        except InputError as error:
            kind = "odd size" if isinstance(error, OddSizeError) else "undecodable"
            return Picture(Fault(kind, file, str(error)), digest)
        if min(image.size) < SMALLEST:
            return Picture(Fault("odd size", file, f"{image.width}×{image.height} pixels"), digest)
        return Picture(None, digest)


def picture_faults(files: Collection[str], pictures: Collection[Picture]) -> list[Fault]:
    """The faults of pictures, and which of them are the same file again."""
    faults = [picture.fault for picture in pictures if picture.fault is not None]
    first: dict[str, str] = {}
    for file, picture in zip(files, pictures, strict=True):
        if picture.digest is not None and first.setdefault(picture.digest, file) != file:
            faults.append(Fault("duplicate picture", file, f"as {first[picture.digest]}"))
    return faults


def caption_faults(
    entries: Sequence[Entry], stray: Sequence[tuple[str, Any]] = (), longest: int = TOO_LONG
) -> list[Fault]:
    """What is wrong with the entries of a caption file.

    Args:
        entries: as `read_entries` gives them.
        stray: captions without an image.
        longest: words that a caption may have.
    """
    names = ", ".join(repr(name) for name in list(dict.fromkeys(name for name, _ in stray))[:SHOWN])
    faults = [Fault("stray caption", f"image_id {names}", f"{len(stray)} captions")] if stray else []
    for name, count in Counter(entry.id for entry in entries).items():
        if count > 1:
            faults.append(Fault("duplicate id", name, f"{count} entries"))
    for entry in entries:
        kinds = defaultdict(list)
        for raw, words in entry.captions:
            if not isinstance(raw, str | list):
                kinds["no text"].append(repr(raw))
            elif not words:
                kinds["empty caption"].append(repr(raw))
            elif len(words) > longest:
                kinds["overlong caption"].append(f"{len(words)} words")
        faults += [Fault(kind, entry.id, what) for kind, found in kinds.items() for what in found]
        if not any(words for _, words in entry.captions):
            faults.append(Fault("captionless", entry.id, entry.file))
    return faults


def lost_words(
    training: Sequence[Entry], validation: Sequence[Entry], tokens: str, min_count: int, max_length: int
) -> list[WordLoss]:
    """What a model would not see of the words, were it trained on these entries with these options of `Photographs`."""
    both = [
        WordCounts().add((words for entry in part for _, words in entry.captions if words), max_length)
        for part in (training, validation)
    ]
    vocabulary = Vocabulary.of_counts(both[0].words, min_count, tokens)
    titles = ("training", "validation")
    return [
        loss
        for counts, title in zip(both, titles, strict=True)
        for loss in word_losses(counts, vocabulary, title, max_length, min_count)
    ]


def word_faults(losses: Sequence[WordLoss], share: float = MAX_UNKNOWN) -> list[Fault]:
    """Those of `lost_words` that are more than this share."""
    return [Fault("lost words", loss.sentence, loss.mend) for loss in losses if loss.least > share]
