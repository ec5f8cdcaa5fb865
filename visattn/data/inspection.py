"""Data checks: unusable images, and faults in caption files."""

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

MAX_BAD = 0.01  # maximum share of bad images in a data set; more suggests a systematic fault
SMALLEST = 16  # pixels of a side; smaller images are placeholders or tracking pixels
TOO_LONG = 100  # words: the longest captions of Flickr30k and COCO have about 80 and 50

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Fault(NamedTuple):
    """A fault in a data set.

    Attributes:
        kind: one of `KINDS`.
        where: the image file, relative to the image folder, or the image's id.
        what: details; may be empty.
    """

    kind: str
    where: str
    what: str = ""


KINDS = {
    "missing": "missing images",
    "undecodable": "unreadable images",
    "odd size": "images of unsuitable size or aspect ratio",
    "duplicate picture": "exact duplicates of other images",
    "checksum": "images that differ from the manifest",
    "duplicate id": "duplicate image ids",
    "captionless": "images without captions",
    "no text": "captions that are not text",
    "empty caption": "captions without words",
    "overlong caption": "captions that are too long",
    "stray caption": "captions without an image in the file",
    "unusable caption": "captions of shards that cannot be used",
    "damaged shard": "shards that cannot be read to their end",
    "lost words": "too many words unknown or truncated",
}


class Picture(NamedTuple):
    """The result of checking an image file.

    Attributes:
        fault: what is wrong with it, or None.
        digest: SHA-256 of the file in hexadecimal, or None if it cannot be read.
    """

    fault: Fault | None
    digest: str | None


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str, unit: str = "image"
) -> Iterator[Result]:
    """Map `function` over items, in order, with `workers` processes (0: this one) and a progress bar.

    Raises:
        InputError: if one of the processes dies.
    """
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(items), desc=title, unit=unit))
        results: Iterable[Result] = map(function, items)
        if workers:
            # Forked if possible: the function may refer to a data module and its trainer, which cannot be pickled.
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


_kept: list[Callable[[Any], Any]] = []  # the function of a worker of `in_parallel`


def _keep(function: Callable[[Any], Any]) -> None:
    _kept[:] = [function]
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # a forked process lacks its parent's threads, and would wait for them


def _apply(item: Any) -> Any:
    return _kept[0](item)


class _Trial(Generic[Item]):
    """The error message from loading an item, or None."""

    def __init__(self, load: Callable[[Item], Any]) -> None:
        self.load = load

    def __call__(self, item: Item) -> str | None:
        try:
            self.load(item)
        except InputError as error:
            return str(error)
        return None


def unusable(load: Callable[[Item], Any], items: Sequence[Item], workers: int = 0) -> list[tuple[Item, str]]:
    """Load all items; return those that raise an `InputError`, with its message."""
    reasons = in_parallel(_Trial(load), items, workers, "Checking images")
    return [(item, reason) for item, reason in zip(items, reasons, strict=True) if reason is not None]


def name_bad(bad: Mapping[str, str], name: str) -> None:
    """Log which images of the data set `name` are left out, and why."""
    for why in bad.values():
        log.warning("%s: left out: %s", name, why)


def check_share(bad: Mapping[str, str], total: int, name: str, share: float = MAX_BAD) -> None:
    """Check that few enough images are left out.

    Args:
        bad: the reason, by image.
        total: number of images.
        name: of the data set, for the message.
        share: maximum share of bad images.

    Raises:
        InputError: if there are too many.
    """
    if len(bad) > share * total:
        image, why = next(iter(bad.items()))
        raise InputError(
            f"{name}: {len(bad)} of {total} images cannot be used, more than {share:.1%}, such as {image} ({why})"
        )


class CheckImage:
    """Checks image files by their names in a folder.

    Args:
        folder: of the images.
        checksums: expected SHA-256 in hexadecimal, by file name; files without one are not compared.
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
        return Picture(image_fault(content, file), digest)


def image_fault(content: bytes, name: str) -> Fault | None:
    """What is wrong with the bytes of an image file, if anything."""
    try:
        image = decode_image(content, name)
    except InputError as error:
        return Fault("odd size" if isinstance(error, OddSizeError) else "undecodable", name, str(error))
    if min(image.size) < SMALLEST:
        return Fault("odd size", name, f"{image.width}×{image.height} pixels")
    return None


def picture_faults(files: Collection[str], pictures: Collection[Picture]) -> list[Fault]:
    """The faults of image files, including duplicates."""
    faults = [picture.fault for picture in pictures if picture.fault is not None]
    first: dict[str, str] = {}
    for file, picture in zip(files, pictures, strict=True):
        if picture.digest is not None and first.setdefault(picture.digest, file) != file:
            faults.append(Fault("duplicate picture", file, f"same as {first[picture.digest]}"))
    return faults


def caption_faults(
    entries: Sequence[Entry], stray: Sequence[tuple[str, Any]] = (), longest: int = TOO_LONG
) -> list[Fault]:
    """Faults in the entries of a caption file.

    Args:
        entries: as returned by `read_entries`.
        stray: captions without an image.
        longest: maximum number of words in a caption.
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


def count_words(entries: Iterable[Entry], max_length: int) -> WordCounts:
    """The words of these entries' captions; see `WordCounts.add`."""
    return WordCounts().add((words for entry in entries for _, words in entry.captions if words), max_length)


def lost_words(
    training: WordCounts, validation: WordCounts, tokens: str, min_count: int, max_length: int
) -> list[WordLoss]:
    """Words that would be unknown or truncated in training on these captions, with these options of `Photographs`."""
    vocabulary = Vocabulary.of_counts(training.words, min_count, tokens)
    both = {"training": training, "validation": validation}
    return [
        loss for title, counts in both.items() for loss in word_losses(counts, vocabulary, title, max_length, min_count)
    ]


def word_faults(losses: Sequence[WordLoss], share: float = MAX_UNKNOWN) -> list[Fault]:
    """The losses above this share, as faults."""
    return [Fault("lost words", loss.sentence, loss.mend) for loss in losses if loss.least > share]
