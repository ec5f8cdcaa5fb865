"""Captioned images in shards: tar files as written by img2dataset, read sequentially."""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from visattn.data.batch import CaptionBatch
from visattn.data.captions import ImageContent
from visattn.data.inputs import to_input
from visattn.data.inspection import MAX_BAD, check_share, in_parallel, name_bad
from visattn.data.loading import BatchedData, BatchLoader, EpochSampler, Split
from visattn.data.losses import (
    MAX_LEFT_OUT,
    MAX_UNKNOWN,
    LeftOut,
    WordCounts,
    report_words,
    word_losses,
)
from visattn.data.streams import StreamedBatches
from visattn.data.tars import RawSample, Shard, captions_of, picture_of, shards_of, texts, webdataset
from visattn.errors import InputError, require_number
from visattn.images import Fit, ModelInput
from visattn.images.reading import decode_image
from visattn.vocabulary import PAD, Vocabulary, Words, read_tokens, tokens_of

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """An image in a shard: its key, its tokenised captions, and the reasons why others are left out."""

    id: str
    captions: list[list[str]]
    lost: list[str]


class Shards(ImageContent, BatchedData):
    """Captioned images streamed from tar files, for data sets too large for single files.

    An epoch's samples are split between processes and their workers in ranges of equal length (up to one sample), so
    every sample is seen once per pass, for any number and size of shards, and all processes have the same number of
    batches. A worker reads its range sequentially, and shuffles within a window. A training batch is a function of
    (seed, epoch, number, processes, workers); when resuming within an epoch, samples already seen are skipped.

    All captions are read once before the first epoch, without images, to count the samples and build the vocabulary.
    Those of the training split are not kept. Samples without a usable image or caption are left out, logged and
    counted; more than `max_bad` of them in an epoch is an error.

    Args:
        root: folder of the data set.
        train: the training shards, relative to `root` or absolute: a pattern with ``*`` or with ranges in braces,
            ``train/{00000..00099}.tar``. All files of a range must exist. Or commands that write the shards to their
            output, for object storage: ``pipe:aws s3 cp s3://bucket/{00000..00099}.tar -``, in webdataset's form.
        val: the validation shards, in the same form.
        test: None, or the test shards, in the same form.
        captions: location of captions: "txt" for the sample's .txt, or a key of its .json, with a text or a list of
            texts.
        vocabulary_file: None builds the vocabulary from the training captions; or a JSON file with a list of words,
            relative to `root` or absolute.
        epoch_size: samples of an epoch, over all processes; None takes one pass. The next epoch continues where
            the last one stopped.
        shuffle: size of the window, in samples, within which a worker shuffles; they are held in memory, undecoded.
        max_bad: maximum share of an epoch's samples that may be bad.
        tokens: tokenisation of captions: "words"; "characters", for scripts without spaces between words; or the JSON
            file of a tokenizer of Hugging Face's `tokenizers`, relative to `root` or absolute. `max_length` then counts
            such tokens, and checkpoints contain the tokenizer.
        max_left_out: maximum share of a split's captions that may be left out because they have no words or cannot be
            read.
        max_unknown: maximum share of a split's words that may be unknown or truncated.
        image_size: size of the model's input in pixels, (h, w) or the side of a square.
        fit: how images are resized; see `visattn.images.fit_image`.
        batch_size: samples of a training batch, per process, each with all of its captions.
        eval_batch_size: maximum number of samples of an evaluation batch; with workers their order differs.
        max_length: words of a caption in a batch; longer captions are truncated.
        min_count: words that occur less often in the training captions are unknown.
        workers: loading processes; 0 loads in the training process.
        seed: of the order.

    Raises:
        InputError: if an option is invalid, or `webdataset` is not installed. Faults in the shards are reported
            when they are first read.
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
        tokens: str = Words.spec,
        max_left_out: float = MAX_LEFT_OUT,
        max_unknown: float = MAX_UNKNOWN,
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
        webdataset()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        require_number("image_size", min(self.image_size), least=1)
        require_number("max_length", max_length, least=1)
        require_number("min_count", min_count, least=1)
        require_number("shuffle", shuffle, least=1)
        require_number("epoch_size", 1 if epoch_size is None else epoch_size, least=1)
        require_number("max_bad", max_bad, least=0, below=1)
        require_number("max_left_out", max_left_out, least=0, most=1)
        require_number("max_unknown", max_unknown, least=0, most=1)
        self.root = Path(root)
        self.tokens = read_tokens(tokens, self.root).spec
        self.max_left_out, self.max_unknown = max_left_out, max_unknown
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
        """All words in the order of their ids, special tokens first."""
        if self.vocabulary_file is not None:
            return Vocabulary.read(self.root / self.vocabulary_file, self.tokens).words
        return Vocabulary.of_counts(self._training[1].words, self.min_count, self.tokens).words

    def setup(self, stage: str | None = None) -> None:
        """Log the unknown and truncated words of the captions before the first epoch.

        Raises:
            InputError: if there are too many.
        """
        if stage != "fit":
            return
        vocabulary = Vocabulary(self.vocabulary, self.tokens)
        validation = WordCounts()
        for captions in self._evaluated("val")[1].values():
            validation.add(captions, self.max_length)
        least = None if self.vocabulary_file else self.min_count
        for counts, title in ((self._training[1], "training"), (validation, "validation")):
            found = word_losses(counts, vocabulary, title, self.max_length, least)
            report_words(found, self.describe(), self.max_unknown)

    @property
    def output_names(self) -> list[str]:
        """Names of the model's outputs: the vocabulary."""
        return self.vocabulary

    def references(self, split: Split) -> Mapping[str, list[list[str]]]:
        """The tokenised captions of each image, not truncated, by image id; those for training are read on demand.

        Raises:
            InputError: if the data set has no such split, or an image occurs twice in it.
        """
        if split == "train":
            return _ReadWhenNeeded(self)
        return self._evaluated(split)[1]

    def describe(self) -> str:
        """The data set's name in messages."""
        return str(self.root)

    def train_dataloader(self) -> DataLoader:
        """The training split, shuffled."""
        counts = self._training[0]
        size = self.epoch_size or sum(counts)
        return self._loader("train", counts, size, self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader:
        """The validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        """The test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader:
        """The test split, or the validation split if there is no test split."""
        return self._evaluation("test" if self.patterns["test"] else "val")

    def paths(self, split: Split) -> list[Shard]:
        """The shards of a split: files, or commands as they are.

        Raises:
            InputError: if there are none, or one of a range is missing.
        """
        pattern = self.patterns[split]
        if pattern is None:
            raise InputError(f"{self.root}: no shards are given for the {split} split; set the option {split}")
        return shards_of(self.root, pattern, split)

    def samples(self, shard: Shard) -> Iterator[Sample]:
        """The samples of a shard without their images, in order; raises as `visattn.data.tars.texts` does."""
        for sample in texts(shard):
            yield Sample(sample["__key__"], *captions_of(sample, self.captions, tokens_of(self.tokens)))

    @cached_property
    def _training(self) -> tuple[list[int], WordCounts]:
        """The number of samples in each shard, and the words of their captions."""
        counts, words, lost = [], WordCounts(), LeftOut()
        found = in_parallel(_Count(self), self.paths("train"), self.workers, "Reading captions", "shard")
        for number, some, of_these in found:
            counts.append(number)
            words.update(some)
            lost.update(of_these)
        self._check_captions("train", words.captions, lost)
        return counts, words

    def _check_captions(self, split: Split, captions: int, lost: LeftOut) -> None:
        name = f"{self.patterns[split]} in {self.root}"
        if not captions:
            raise InputError(
                f"{name}: no sample has a caption in '{self.captions}'; set the option captions to 'txt' or to a key "
                f"of the .json. {'; '.join(lost.lines())}"
            )
        lost.report(name, self.max_left_out)

    def _evaluated(self, split: Split) -> tuple[list[int], dict[str, list[list[str]]]]:
        """The number of samples in each shard, and the captions by sample id, if any."""
        if split not in self._known:
            counts, known, lost = [], {}, LeftOut()
            for path in self.paths(split):
                samples = list(self.samples(path))
                counts.append(len(samples))
                for sample in samples:
                    _count_lost(sample, lost)
                    if sample.id in known:
                        raise InputError(f"{path}: the key {sample.id} occurs twice in the {split} split")
                    if sample.captions:
                        known[sample.id] = sample.captions
            self._check_captions(split, len(known), lost)
            self._known[split] = counts, known
        return self._known[split]

    def _evaluation(self, split: Split) -> DataLoader:
        counts, _ = self._evaluated(split)
        return self._loader(split, counts, sum(counts), self.eval_batch_size, None)

    def _loader(self, split: Split, counts: list[int], size: int, batch_size: int, seed: int | None) -> DataLoader:
        make = _Batching(
            self.describe(),
            self.max_bad,
            ModelInput(self.image_size, self.fit),
            self.captions,
            Vocabulary(self.vocabulary, self.tokens),
            self.max_length,
        )
        batches = StreamedBatches(self.paths(split), counts, size, batch_size, make, seed, self.shuffle)
        sampler = EpochSampler(batches, *self.process)
        return _ShardLoader(batches, sampler=sampler, batch_size=None, **self._loader_options())


class _Count:
    """Counts the samples of a shard, the words of its captions, and the captions left out."""

    def __init__(self, data: Shards) -> None:
        self.data = data

    def __call__(self, path: Shard) -> tuple[int, WordCounts, LeftOut]:
        number, words, lost = 0, WordCounts(), LeftOut()
        for sample in self.data.samples(path):
            number += 1
            words.add(sample.captions, self.data.max_length)
            _count_lost(sample, lost)
        return number, words, lost


def _count_lost(sample: Sample, lost: LeftOut) -> None:
    lost.captions += len(sample.captions) + len(sample.lost)
    for why in sample.lost:
        reason, _, more = why.partition("; ")
        lost.add(f"are missing: their sample {reason}", f"{sample.id}{f' ({more})' if more else ''}")


class _ReadWhenNeeded(Mapping[str, list[list[str]]]):
    """The captions of the training split, read on demand, since only some training regimes use them."""

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
    """A batch of the usable samples (None if there are none), and the reasons for the others, by key."""

    batch: CaptionBatch | None
    bad: dict[str, str]


class _Batching(NamedTuple):
    """Makes batches of samples; see `Shards` for the options. `name` is that of the data set, for messages."""

    name: str
    max_bad: float
    input: ModelInput
    captions: str
    vocabulary: Vocabulary
    max_length: int

    def __call__(self, samples: list[RawSample]) -> _Loaded:
        good: list[tuple[str, Tensor, list[list[str]]]] = []
        bad: dict[str, str] = {}
        for sample in samples:
            key, name = sample["__key__"], f"{sample['__url__']}, sample {sample['__key__']}"
            try:
                good.append((key, self._picture(sample, name), self._captions(sample, name)))
            except InputError as error:
                bad[key] = str(error)
        return _Loaded(self._batch(good) if good else None, bad)

    def _picture(self, sample: RawSample, name: str) -> Tensor:
        return to_input(decode_image(picture_of(sample, name), name), self.input.fit_image, name)[0]

    def _captions(self, sample: RawSample, name: str) -> list[list[str]]:
        captions, lost = captions_of(sample, self.captions, self.vocabulary.tokens)
        if not captions:
            raise InputError(f"{name} has no caption with words in '{self.captions}': it {lost[0]}")
        return captions

    def _batch(self, good: list[tuple[str, Tensor, list[list[str]]]]) -> CaptionBatch:
        ids, images, captions = zip(*good, strict=True)
        tokens = [torch.tensor(self.vocabulary.encode(words, self.max_length)) for own in captions for words in own]
        owner = torch.tensor([row for row, own in enumerate(captions) for _ in own])
        padded = pad_sequence(tokens, batch_first=True, padding_value=PAD)
        return CaptionBatch(torch.stack(images), None, owner, padded, list(ids))


class _ShardLoader(BatchLoader):
    """Yields the batches, and counts bad samples."""

    def choices(self) -> dict[str, int]:
        return {**super().choices(), "workers": self.num_workers, "processes": self.sampler.num_replicas}

    def __iter__(self) -> Iterator[CaptionBatch]:
        make, share = self.dataset.make, self.dataset.size // self.sampler.num_replicas
        bad: dict[str, str] = {}
        for batch, new in super().__iter__():
            if new:
                bad |= new
                name_bad(new, make.name)
                check_share(bad, share, make.name, make.max_bad)
            if batch is not None:
                yield batch
            elif self.sampler.num_replicas > 1:  # other processes would wait for this one
                raise InputError(f"{make.name}: no image of a batch can be used; increase batch_size")
        if bad:
            log.warning("%s: %d of %d images were left out", make.name, len(bad), share)
