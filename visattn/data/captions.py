"""The base of captioned data sets: vocabulary, references, and batches."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from visattn.data.batch import CaptionBatch
from visattn.data.loading import BatchedData, BatchName, EvaluationImages, Split, TrainingBatches
from visattn.data.losses import MAX_UNKNOWN, WordCounts, report_words, word_losses
from visattn.errors import InputError
from visattn.images import CellShift, Geometry
from visattn.metrics import Facts, coverage
from visattn.vocabulary import PAD, Vocabulary, Words, tokenize

SIDES = {"left", "right"}  # words that a mirror makes wrong
SIDES_IN_CHINESE = {"左", "右"}  # and characters; Japanese has them, too


class CaptionedImage(NamedTuple):
    """An image and its captions.

    Attributes:
        id: its name, unique within the data set.
        captions: tokenised words, uncut; at least one caption, each of at least one word.
        path: the picture's file, where it has one.
    """

    id: str
    captions: list[list[str]]
    path: Path | None = None


class Features(Protocol):
    """Annotation vectors that were computed before, by image id.

    Where it also has ``__getitems__(image_ids: list[str]) -> Tensor (N, h, w, D)``, a batch is one call of that.
    """

    def __getitem__(self, image_id: str) -> Tensor:
        """(h, w, D) of one image."""
        ...


class CaptionData(BatchedData, ABC):
    """Captioned images in batches of `CaptionBatch`.

    Training batches hold (image, caption) pairs, each pair once an epoch, of nearly one length so that little is
    padded, or all captions of their images (see `grouped`); their order is a function of (seed, epoch).
    Evaluation batches hold `eval_batch_size` images, each once and with all of its captions, in the order of
    `examples`.

    Args:
        batch_size: (image, caption) pairs of a training batch, for one process.
        eval_batch_size: images of an evaluation batch.
        max_length: words of a caption that a batch holds; longer captions are cut. References and vocabulary are uncut.
        min_count: a word that occurs less often in the training captions is unknown.
        workers: processes that load; 0 loads in the training process itself.
        seed: random seed of the order and of held-out images.

    Attributes:
        max_unknown: the share of a split's words that may be unknown to the model, or be cut off; see `report_words`.
        grouped: whether a training batch has all captions of its images, instead of captions of similar length: an
            image is then encoded once per epoch, and its captions share one memory, if `batch_size` is a multiple of
            their number. Also for data in which a caption's length depends on the content of the image, since
            otherwise batch normalisation would never see a typical batch.
        mirror: whether training images are mirrored left to right with probability ½, except those with "left" or
            "right" in a caption.
        features: None, or annotation vectors by image id; if set, batches contain them instead of images.
        mirrored_features: those of the mirrored images; needed if both `features` and `mirror` are set.
        places: None, or the (h, w) grid of annotation vectors and where its cells look; where set, training batches say
            where each word is (`CaptionBatch.regions`), so that attention can be supervised.
    """

    features: Features | None = None
    mirrored_features: Features | None = None
    places: tuple[tuple[int, int], CellShift] | None = None
    grouped = False
    mirror = False
    max_unknown = MAX_UNKNOWN

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int = 32,
        max_length: int = 20,
        min_count: int = 1,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed)
        for name, value in (("max_length", max_length), ("min_count", min_count)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        self.max_length = max_length
        self.min_count = min_count

    @abstractmethod
    def examples(self, split: Split) -> Sequence[CaptionedImage]:
        """The images of a split, cached, always in one order; empty where the data set has no such split."""

    @abstractmethod
    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        """The model's input, (3, h, w) uint8 of one size for all, and how it came from the original."""

    def regions(self, image_id: str, words: list[str]) -> list[np.ndarray | None]:
        """Where each word of a caption is: a mask (h, w) over the input's pixels, or None if that is not known."""
        return [None] * len(words)

    def facts(self, image_id: str) -> Facts | None:
        """Everything in an image, to check captions against; None if unknown, as of photographs."""
        return None

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every word in the order of its id, special tokens first; from the training captions alone."""
        captions = (caption for example in self._examples("train") for caption in example.captions)
        return Vocabulary.build(captions, self.min_count, self.tokens).words

    @property
    def output_names(self) -> list[str]:
        """Names of the model's outputs: the vocabulary."""
        return self.vocabulary

    def report_words(self) -> None:
        """Write into the log what a model will not see of the words to train and for validation.

        Raises:
            InputError: if that is more than `max_unknown`.
        """
        vocabulary = Vocabulary(self.vocabulary, self.tokens)
        for split, title in (("train", "training"), ("val", "validation")):
            counts = WordCounts()
            for example in self.examples(split):
                counts.add(example.captions, self.max_length)
            found = word_losses(counts, vocabulary, title, self.max_length, self.min_count)
            report_words(found, self.describe(), self.max_unknown)

    def references(self, split: Split) -> dict[str, list[list[str]]]:
        """The uncut, tokenised captions of each image, by image id, for scoring.

        Raises:
            InputError: if the data set has no such split.
        """
        return {example.id: example.captions for example in self._examples(split)}

    def train_dataloader(self) -> DataLoader:
        """Pairs of the training split."""
        return self.training_loader(_Pairs(self, "train"))

    def val_dataloader(self) -> DataLoader:
        """Images of the validation split with all their captions."""
        return self.evaluation_loader(_Images(self, "val"))

    def test_dataloader(self) -> DataLoader:
        """Images of the test split with all their captions."""
        return self.evaluation_loader(_Images(self, "test"))

    def predict_dataloader(self) -> DataLoader:
        """Images of the test split, or of the validation split where the data set has no test split."""
        return self.evaluation_loader(_Images(self, "test" if self.examples("test") else "val"))

    def _examples(self, split: Split) -> Sequence[CaptionedImage]:
        examples = self.examples(split)
        if not examples:
            raise InputError(f"{self.describe()} has no {split} split")
        return examples

    def describe(self) -> str:
        """The data set's name in messages."""
        return type(self).__name__


class _Captions:
    """The captions of a split as one matrix of ids, and batches of its rows."""

    def __init__(self, data: CaptionData, split: Split) -> None:
        self.data, self.split = data, split
        self.split_examples = data._examples(split)
        vocabulary = Vocabulary(data.vocabulary, data.tokens)
        captions = [
            vocabulary.encode(caption, data.max_length)
            for example in self.split_examples
            for caption in example.captions
        ]
        counts = [len(example.captions) for example in self.split_examples]
        self.image = np.repeat(np.arange(len(counts)), counts)  # of each caption
        self.first = np.concatenate([[0], np.cumsum(counts)])  # caption of each image
        self.lengths = np.array([len(caption) for caption in captions])
        self.sided = np.array([any(_sided(c, vocabulary) for c in e.captions) for e in self.split_examples])
        # int32: half of the memory, and COCO has 600 000 captions
        self.tokens = torch.full((len(captions), int(self.lengths.max())), PAD, dtype=torch.int32)
        filled = torch.arange(self.tokens.shape[1]) < torch.from_numpy(self.lengths)[:, None]
        self.tokens[filled] = torch.tensor([i for caption in captions for i in caption], dtype=torch.int32)
        self._regions: dict[tuple[int, bool], list[Tensor | None]] = {}

    def batch(self, pairs: np.ndarray, generator: torch.Generator | None = None) -> CaptionBatch:
        """The batch of these captions, by number; an image stands once, mirrored by chance where there is a generator.

        All its captions in the batch see it the same way.
        """
        rows, owner = np.unique(self.image[pairs], return_inverse=True)
        examples = [self.split_examples[row] for row in rows]
        mirrored = torch.zeros(len(rows), dtype=torch.bool)
        if generator is not None:
            mirrored = (torch.rand(len(rows), generator=generator) < 0.5) & ~torch.from_numpy(self.sided[rows])
        tokens = self.tokens[torch.from_numpy(pairs), : int(self.lengths[pairs].max())].long()
        ids = [example.id for example in examples]
        features = self.data.features
        if features is None:
            images = torch.stack([self.data.load(example)[0] for example in examples])
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        else:
            images, features = None, _look_up(features, ids)
            if mirrored.any():
                of_mirrored = [name for name, turned in zip(ids, mirrored.tolist(), strict=True) if turned]
                features[mirrored] = _look_up(self.data.mirrored_features, of_mirrored)
        regions = None
        if self.data.places is not None and self.split == "train":
            regions = torch.zeros(*tokens[:, 1:].shape, math.prod(self.data.places[0]))
            for row, (pair, turned) in enumerate(zip(pairs.tolist(), mirrored[owner].tolist(), strict=True)):
                for t, region in enumerate(self._regions_of(pair, turned)):
                    if region is not None:
                        regions[row, t] = region
        return CaptionBatch(images, features, torch.from_numpy(owner), tokens, ids, regions)

    def _regions_of(self, pair: int, mirrored: bool) -> list[Tensor | None]:
        """Of each word of a caption, what share of its region is in each cell, (h w) in sum 1; None if unknown."""
        if (pair, mirrored) not in self._regions:
            image = self.image[pair]
            example = self.split_examples[image]
            words = example.captions[pair - self.first[image]][: self.data.max_length]
            masks = self.data.regions(example.id, words)
            turned = (mask if mask is None or not mirrored else mask[:, ::-1] for mask in masks)
            shares = [None if mask is None else coverage(mask, *self.data.places).ravel() for mask in turned]
            self._regions[pair, mirrored] = [
                torch.from_numpy(share / share.sum()).float() if share is not None and share.any() else None
                for share in shares
            ]
        return self._regions[pair, mirrored]


def _sided(caption: list[str], vocabulary: Vocabulary) -> bool:
    """Whether a caption says which side something is on."""
    text = vocabulary.join(caption)
    words = caption if vocabulary.tokens.spec == Words.spec else tokenize(text)
    return bool(SIDES & set(words) or SIDES_IN_CHINESE & set(text))


def _look_up(features: Features, ids: list[str]) -> Tensor:
    """(N, h, w, D) of these images, in memory of their own."""
    whole = getattr(features, "__getitems__", None)
    return whole(ids) if whole else torch.stack([features[i] for i in ids])


class _Pairs(TrainingBatches[CaptionBatch]):
    """Pairs of an image and one of its captions."""

    def __init__(self, data: CaptionData, split: Split) -> None:
        self.captions = _Captions(data, split)
        super().__init__(len(self.captions.lengths), data.batch_size, data.seed)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        if self.captions.data.grouped:
            first = self.captions.first
            return np.concatenate([np.arange(first[i], first[i + 1]) for i in rng.permutation(len(first) - 1)])
        shuffled = rng.permutation(self.count)
        return shuffled[np.argsort(self.captions.lengths[shuffled], kind="stable")]

    def share(self, items: np.ndarray, rank: int, world: int) -> np.ndarray:
        """As for all data; where grouped, whole images, as long as there is one for each process."""
        image = np.searchsorted(self.captions.first, items, side="right")
        starts = np.flatnonzero(np.diff(image, prepend=-1))
        if not self.captions.data.grouped or len(starts) < world:
            return super().share(items, rank, world)
        begin, end = ((len(starts) * r) // world for r in (rank, rank + 1))
        return items[starts[begin] : starts[end] if end < len(starts) else len(items)]

    def make(self, items: np.ndarray, name: BatchName) -> CaptionBatch:
        if self.captions.data.grouped:
            items = np.sort(items)  # images in order, as `batch` has them: their captions share a row of the memory
        return self.captions.batch(items, name.generator(self.seed) if self.captions.data.mirror else None)


class _Images(EvaluationImages[CaptionBatch]):
    """Images with all of their captions."""

    def __init__(self, data: CaptionData, split: Split) -> None:
        self.captions = _Captions(data, split)
        super().__init__(len(self.captions.split_examples))

    def __getitems__(self, images: Sequence[int]) -> CaptionBatch:
        first = self.captions.first
        pairs = np.concatenate([np.arange(first[i], first[i + 1]) for i in images])
        return self.captions.batch(pairs)
