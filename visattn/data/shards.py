"""Captioned images in shards: tar files as img2dataset writes them, read from beginning to end.

A shard holds, one sample after the other, the files `000012.jpg`, `000012.txt` and `000012.json`. What belongs to one
sample is decided by the `webdataset` library, which also opens the shards and shuffles.
"""

import contextlib
import io
import itertools
import json
import logging
import lzma
import math
import random
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, get_worker_info

from visattn.data.batch import CaptionBatch
from visattn.data.images import decode_image, fitting, to_input
from visattn.data.inspection import MAX_BAD, check_share, in_parallel, name_bad
from visattn.data.loading import BatchedData, BatchLoader, BatchName, EpochSampler, Split
from visattn.errors import InputError
from visattn.geometry import Fit
from visattn.vocabulary import PAD, Vocabulary, tokenize

PICTURES = ("jpg", "jpeg", "png", "webp")  # suffixes in a shard, the first that a sample has
_TEXTS = ("txt", "json")
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset passes over

log = logging.getLogger(__name__)


class Segment(NamedTuple):
    """Samples `start` to `stop` of a shard, both by number."""

    shard: int
    start: int
    stop: int


def segments(counts: list[int], start: int, stop: int, seed: int | None) -> list[Segment]:
    """What stands at the positions from `start` to `stop` when all shards are read, one pass after the other.

    Args:
        counts: how many samples each shard has.
        start: the first position; passes have sum(counts) each.
        stop: behind the last.
        seed: of the order of the shards, which differs from pass to pass; None keeps them as they are.
    """
    total, found = sum(counts), []
    for number in range(start // total, -(-stop // total)):
        order = range(len(counts)) if seed is None else np.random.default_rng([seed, number]).permutation(len(counts))
        at = number * total
        for shard in order:
            part = Segment(int(shard), max(start - at, 0), min(stop - at, counts[shard]))
            if part.start < part.stop:
                found.append(part)
            at += counts[shard]
    return found


class Sample(NamedTuple):
    """What a shard has for one image: its key, and its tokenised captions, none where they cannot be used."""

    id: str
    captions: list[list[str]]


class Shards(BatchedData):
    """Captioned images in tar files, streamed: for data sets too large to be opened file by file.

    An epoch's samples are dealt to the processes, and of a process to its loading workers, in stretches of equal
    length (up to one sample), so every sample comes once in a pass whatever the shards' sizes and number, and all
    processes make equally many batches. A worker reads its stretch from beginning to end and shuffles within a window.
    A training batch is a function of (seed, epoch, number, processes, workers); after a checkpoint in the middle of an
    epoch, reading begins anew and skips what was seen.

    All captions are read once before the first epoch, to count the samples and for the vocabulary; pictures are
    skipped over in that. Those of the training split are not kept. A sample without a usable picture or caption is
    left out, named in the log and counted; an epoch ends with an error as soon as they are more than `max_bad` of it.

    Args:
        root: folder of the data set.
        train: the shards to train on, relative to `root` or absolute: a pattern with ``*`` or with ranges in braces,
            ``train/{00000..00099}.tar``. Of a range, every file must be there.
        val: those to validate on, likewise.
        test: None, or those to test on, likewise.
        captions: where captions stand: "txt" for the sample's .txt, else a key of its .json, with a text or a list of
            texts.
        vocabulary_file: None builds the vocabulary from the training captions; or a JSON file with a list of words,
            relative to `root` or absolute.
        epoch_size: samples of an epoch, over all processes; None takes one pass. The next epoch goes on where the last
            one stopped.
        shuffle: samples of the window within which a worker shuffles; they are held in memory, undecoded.
        max_bad: the share of an epoch's samples that may be bad.
        image_size: of the model's input in pixels, (h, w) or the side of a square.
        fit: how a picture is made that size; see `visattn.geometry.fit_image`.
        batch_size: samples of a training batch, for one process, each with all of its captions.
        eval_batch_size: samples of an evaluation batch, at most; with workers they come in another order.
        max_length: words of a caption that a batch holds; longer captions are cut.
        min_count: a word that occurs less often in the training captions is unknown.
        workers: processes that load; 0 loads in the training process itself.
        seed: of the order.

    Raises:
        InputError: where an option makes no sense, or `webdataset` is not installed. A fault of the shards is told when
            they are first needed.
    """

    def __init__(
        self,
        root: Path,
        train: str,
        val: str,
        test: str | None = None,
        captions: str = "txt",
        vocabulary_file: str | None = None,
        epoch_size: int | None = None,
        shuffle: int = 1000,
        max_bad: float = MAX_BAD,
        image_size: int | tuple[int, int] = 224,
        fit: Fit = "crop",
        batch_size: int = 32,
        eval_batch_size: int = 32,
        max_length: int = 20,
        min_count: int = 5,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed)
        _webdataset()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        for name, value in (
            ("image_size", min(self.image_size)),
            ("max_length", max_length),
            ("min_count", min_count),
            ("shuffle", shuffle),
            ("epoch_size", 1 if epoch_size is None else epoch_size),
        ):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if not 0 <= max_bad < 1:
            raise InputError(f"max_bad is {max_bad}; it must be at least 0 and less than 1")
        self.root = Path(root)
        self.patterns: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.captions = captions
        self.vocabulary_file = vocabulary_file
        self.epoch_size = epoch_size
        self.shuffle = shuffle
        self.max_bad = max_bad
        self.fit = fit
        self.max_length = max_length
        self.min_count = min_count
        self._known: dict[Split, tuple[list[int], dict[str, list[list[str]]]]] = {}

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every word in the order of its id, special tokens first."""
        if self.vocabulary_file is not None:
            return Vocabulary.read(self.root / self.vocabulary_file).words
        return Vocabulary.of_counts(self._training[1], self.min_count).words

    @property
    def output_names(self) -> list[str]:
        """What a model's outputs stand for: the vocabulary."""
        return self.vocabulary

    def references(self, split: Split) -> Mapping[str, list[list[str]]]:
        """The uncut, tokenised captions of each image, by image id; those of the training split are read when needed.

        Raises:
            InputError: where the data set has no such split, or an image stands in it twice.
        """
        if split == "train":
            return _ReadWhenNeeded(self)
        return self._evaluated(split)[1]

    def regions(self, image_id: str, words: list[str]) -> list[None]:
        """Where the words of a caption are: not known of any."""
        return [None] * len(words)

    def describe(self) -> str:
        """The data set's name in messages."""
        return str(self.root)

    def train_dataloader(self) -> DataLoader:
        """The training split, shuffled."""
        counts = self._training[0]
        size = self.epoch_size or sum(counts)
        return self._loader(_Batches(self, "train", counts, size, self.batch_size, self.seed))

    def val_dataloader(self) -> DataLoader:
        """The validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        """The test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader:
        """The test split, or the validation split where the data set has no test split."""
        return self._evaluation("test" if self.patterns["test"] else "val")

    def paths(self, split: Split) -> list[Path]:
        """The shards of a split.

        Raises:
            InputError: where there are none, or one that a range names is missing.
        """
        pattern = self.patterns[split]
        if pattern is None:
            raise InputError(f"{self.root}: no shards are named for the {split} split; set the option {split}")
        found: list[Path] = []
        for name in _webdataset().shardlists.expand_urls(pattern):
            here = sorted(self.root.glob(name)) if re.search(r"[*?\[]", name) else [self.root / name]
            if not here or not here[0].is_file():
                raise InputError(f"{self.root / name}: no such shard (option {split})")
            found += here
        return found

    def samples(self, path: Path) -> Iterator[Sample]:
        """The samples of a shard without their pictures, in its order.

        Raises:
            InputError: where it is no tar file, is cut off, or has a file twice.
        """
        with _shard_errors(path):
            for sample in _webdataset().tariterators.group_by_keys(_texts(path)):
                yield Sample(sample["__key__"], captions_of(sample, self.captions))

    @cached_property
    def _training(self) -> tuple[list[int], Counter[str]]:
        """How many samples each shard has, and how often each word occurs."""
        counts, words = [], Counter()
        found = in_parallel(_Count(self), self.paths("train"), self.workers, "Reading captions", "shard")
        for number, some in found:
            counts.append(number)
            words.update(some)
        if not words:
            raise InputError(
                f"{self.patterns['train']} in {self.root}: no sample has a caption in '{self.captions}'; set the "
                "option captions to 'txt' or to a key of the .json"
            )
        return counts, words

    def _evaluated(self, split: Split) -> tuple[list[int], dict[str, list[list[str]]]]:
        """How many samples each shard has, and the captions of those that have any, by their id."""
        if split not in self._known:
            counts, known = [], {}
            for path in self.paths(split):
                samples = list(self.samples(path))
                counts.append(len(samples))
                for sample in samples:
                    if sample.id in known:
                        raise InputError(f"{path}: the key {sample.id} stands twice in the {split} split")
                    if sample.captions:
                        known[sample.id] = sample.captions
            if not known:
                raise InputError(f"{self.patterns[split]} in {self.root}: no sample has a caption in '{self.captions}'")
            self._known[split] = counts, known
        return self._known[split]

    def _evaluation(self, split: Split) -> DataLoader:
        counts, _ = self._evaluated(split)
        return self._loader(_Batches(self, split, counts, sum(counts), self.eval_batch_size, None))

    def _loader(self, batches: "_Batches") -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(batches, rank, world)
        return _ShardLoader(batches, sampler=sampler, batch_size=None, **self._loader_options())


def captions_of(sample: dict[str, bytes], where: str) -> list[list[str]]:
    """The tokenised captions of a sample, those with a word: of its .txt, or under a key of its .json."""
    try:
        if where == "txt":
            texts: Any = sample["txt"].decode("utf-8")
        else:
            texts = json.loads(sample["json"])[where]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    texts = texts if isinstance(texts, list) else [texts]
    return [words for text in texts if isinstance(text, str) and (words := tokenize(text))]


def _texts(path: Path) -> Iterator[dict[str, Any]]:
    """The files of a shard as webdataset has them, but the pictures' bytes are skipped over, not read."""
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.isreg() and not _META.match(member.name):
                text = member.name.lower().endswith(_TEXTS)
                yield {"fname": member.name, "data": tar.extractfile(member).read() if text else b"", "__url__": path}
            tar.members = []  # else it would remember every header
        # To `tarfile`, one that was cut off between two files has just ended; a whole one ends in empty blocks.
        if isinstance(tar.fileobj, io.BufferedReader) and path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without an end")
        yield {}  # the end of a shard


@contextlib.contextmanager
def _shard_errors(path: Path) -> Iterator[None]:
    """Whatever a damaged tar file makes its readers trip over, as a sentence that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        why = error.args[0] if error.args else type(error).__name__
        raise InputError(f"{path} cannot be read as a shard ({why}); is it damaged or cut off?") from error


class _Count:
    """Samples of a shard, and how often each word occurs in its captions."""

    def __init__(self, data: Shards) -> None:
        self.data = data

    def __call__(self, path: Path) -> tuple[int, Counter[str]]:
        number, words = 0, Counter()
        for sample in self.data.samples(path):
            number += 1
            words.update(itertools.chain.from_iterable(sample.captions))
        return number, words


class _ReadWhenNeeded(Mapping[str, list[list[str]]]):
    """The captions of the training split, which only some ways of training look at."""

    def __init__(self, data: Shards) -> None:
        self.data = data

    @cached_property
    def _known(self) -> dict[str, list[list[str]]]:
        samples = (sample for path in self.data.paths("train") for sample in self.data.samples(path))
        return {sample.id: sample.captions for sample in samples if sample.captions}

    def __getitem__(self, image_id: str) -> list[list[str]]:
        return self._known[image_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class _Loaded(NamedTuple):
    """A batch of what could be used, None where nothing could, and why what could not, by the sample's key."""

    batch: CaptionBatch | None
    bad: dict[str, str]


class _Batches(Dataset):
    """Batches by their names, as `TrainingBatches` has them, but made of a stream that stays open from one to the next.

    Batch number i is made by worker i % workers, as PyTorch's loader deals them out, and is the next of that worker's
    stretch. Asked for another than the next, a worker begins its stretch anew and skips.
    """

    def __init__(
        self, data: Shards, split: Split, counts: list[int], size: int, batch_size: int, seed: int | None
    ) -> None:
        self.data, self.counts, self.size, self.batch_size, self.seed = data, counts, size, batch_size, seed
        self.shards = data.paths(split)
        self.vocabulary = Vocabulary(data.vocabulary)
        self._open: tuple[BatchName | None, Iterator[list[dict[str, Any]]]] = (None, iter(()))

    def batches(self, world: int = 1) -> int:
        """How many batches an epoch has for each process."""
        return math.ceil(math.ceil(self.size / world) / self.batch_size)

    def __len__(self) -> int:
        return self.batches()

    def __getitem__(self, name: BatchName | int) -> _Loaded:
        name = BatchName(0, name) if isinstance(name, int) else name
        expected, stream = self._open
        if name != expected:
            stream = self._stream(name)
        samples = next(stream)
        self._open = name._replace(batch=name.batch + _workers()), stream
        return self._load(samples)

    def stretch(self, name: BatchName, workers: int) -> tuple[int, list[int]]:
        """The position at which the worker of a batch begins in this epoch, and the sizes of its batches."""
        first = (0 if self.seed is None else name.epoch) * self.size
        start, stop = (first + self.size * rank // name.world for rank in (name.rank, name.rank + 1))
        count = self.batches(name.world)
        stop = max(stop, start + count)  # every process needs something for each of its batches
        edges = [start + (stop - start) * i // count for i in range(count + 1)]
        mine = name.batch % workers
        before = sum(len(range(worker, count, workers)) for worker in range(mine))
        own = edges[before : before + len(range(mine, count, workers)) + 1]
        return own[0], [b - a for a, b in itertools.pairwise(own)]

    def _stream(self, name: BatchName) -> Iterator[list[dict[str, Any]]]:
        """The samples, undecoded, of this batch and of those that the worker makes after it."""
        workers = _workers()
        start, sizes = self.stretch(name, workers)
        samples = self._read(segments(self.counts, start, start + sum(sizes), self.seed))
        if self.seed is not None:
            order = random.Random(f"{self.seed} {name.epoch} {name.rank} {name.batch % workers}")
            samples = _webdataset().filters.shuffle(self.data.shuffle, rng=order)(samples)
        samples = iter(samples)
        for number, size in enumerate(sizes):
            batch = list(itertools.islice(samples, size))
            if number >= name.batch // workers:
                yield batch

    def _read(self, parts: Iterable[Segment]) -> Iterator[dict[str, Any]]:
        for part in parts:
            path, number = self.shards[part.shard], part.start
            with path.open("rb") as file, _shard_errors(path):
                # Not webdataset's own opener: it starts a program for a file whose name begins with "pipe:".
                files = _webdataset().tariterators.tar_file_expander([{"url": str(path), "stream": file}])
                samples = _webdataset().tariterators.group_by_keys(files)
                for sample in itertools.islice(samples, part.start, part.stop):
                    yield sample
                    number += 1
            if number < part.stop:
                raise InputError(f"{path} has {number} samples, and had {self.counts[part.shard]} when the run began")

    def _load(self, samples: list[dict[str, Any]]) -> _Loaded:
        good: list[tuple[str, Tensor, list[list[str]]]] = []
        bad: dict[str, str] = {}
        for sample in samples:
            key, name = sample["__key__"], f"{sample['__url__']}, sample {sample['__key__']}"
            try:
                good.append((key, self._picture(sample, name), self._captions(sample, name)))
            except InputError as error:
                bad[key] = str(error)
        return _Loaded(self._batch(good) if good else None, bad)

    def _picture(self, sample: dict[str, Any], name: str) -> Tensor:
        content = next((sample[suffix] for suffix in PICTURES if suffix in sample), None)
        if content is None:
            raise InputError(f"{name} has no picture ({', '.join(PICTURES)})")
        return to_input(decode_image(content, name), fitting(self.data.image_size, self.data.fit), name)[0]

    def _captions(self, sample: dict[str, Any], name: str) -> list[list[str]]:
        captions = captions_of(sample, self.data.captions)
        if not captions:
            raise InputError(f"{name} has no caption with a word in '{self.data.captions}'")
        return captions

    def _batch(self, good: list[tuple[str, Tensor, list[list[str]]]]) -> CaptionBatch:
        ids, images, captions = zip(*good, strict=True)
        tokens = [
            torch.tensor(self.vocabulary.encode(words, self.data.max_length)) for own in captions for words in own
        ]
        owner = torch.tensor([row for row, own in enumerate(captions) for _ in own])
        padded = pad_sequence(tokens, batch_first=True, padding_value=PAD)
        return CaptionBatch(torch.stack(images), None, owner, padded, list(ids))


class _ShardLoader(BatchLoader):
    """Hands on the batches, and counts what is bad."""

    def choices(self) -> dict[str, int]:
        return {**super().choices(), "workers": self.num_workers, "processes": self.sampler.num_replicas}

    def __iter__(self) -> Iterator[CaptionBatch]:
        data, share = self.dataset.data, self.dataset.size // self.sampler.num_replicas
        bad: dict[str, str] = {}
        for batch, new in super().__iter__():
            if new:
                bad |= new
                name_bad(new, data.describe())
                check_share(bad, share, data.describe(), data.max_bad)
            if batch is not None:
                yield batch
            elif self.sampler.num_replicas > 1:  # the others would wait for it
                raise InputError(f"{data.describe()}: no image of a batch can be used; make batch_size larger")
        if bad:
            log.warning("%s: %d of %d images were left out", data.describe(), len(bad), share)


def _workers() -> int:
    """Among how many loading processes this one is."""
    info = get_worker_info()
    return 1 if info is None else info.num_workers


def _webdataset() -> Any:
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise InputError(
            "shards are read by the package webdataset, which is not installed: pip install 'visattn[webdataset]'"
        ) from error
    return webdataset
