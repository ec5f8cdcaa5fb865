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
from visattn.data.views import View, random_parts
from visattn.errors import InputError, require_number
from visattn.images import CellShift, Geometry
from visattn.metrics import Facts, Mentions, coverage
from visattn.vocabulary import PAD, Vocabulary, Words, tokenize

SIDES = {"left", "right"}  # words that are wrong after mirroring
SIDES_IN_CHINESE = {"左", "右"}  # the same characters as in Japanese


class CaptionedImage(NamedTuple):
    """An image and its captions.

    id: name, unique within the data set.
    captions: tokenised and not truncated; at least one caption, each with at least one word.
    path: the image file, if there is one.
    """

    id: str
    captions: list[list[str]]
    path: Path | None = None


class Features(Protocol):
    """Precomputed annotation vectors, by image id.

    If it has ``__getitems__(image_ids: list[str]) -> Tensor (N, h, w, D)``, this is called once per batch.
    """

    def __getitem__(self, image_id: str) -> Tensor:
        """(h, w, D) of one image."""
        ...


class ImageContent:
    """What is known of images besides their captions, to check attention and captions against: by default nothing."""

    def regions(self, image_id: str, words: list[str]) -> list[np.ndarray | None]:
        """The region of each word of a caption: a mask (h, w) over the input's pixels, or None if unknown."""
        return [None] * len(words)

    def facts(self, image_id: str) -> Facts | None:
        """The content of an image; None if unknown, as for photographs."""
        return None

    def mentions(self, image_id: str, caption: str) -> Mentions | None:
        """The objects that a caption names, and those in the image; None if the latter are unknown."""
        return None


class CaptionData(ImageContent, BatchedData, ABC):
    """Captioned images in batches of `CaptionBatch`.

    A training batch has (image, caption) pairs of similar length, to reduce padding, or all captions of its images (see
    `grouped`); each pair occurs once per epoch, in an order that is a function of (seed, epoch). An evaluation batch
    has `eval_batch_size` images with all of their captions, in the order of `examples`.

    Args:
        batch_size: (image, caption) pairs of a training batch, per process.
        eval_batch_size: images of an evaluation batch.
        max_length: words of a caption in a batch; longer captions are truncated there, but not in references.
        min_count: words that occur less often in the training captions are unknown.
        workers: loading processes; 0 loads in the training process.
        seed: random seed of the order and of held-out images.

    Attributes:
        max_unknown: maximum share of a split's words that may be unknown or truncated; see `report_words`.
        grouped: whether a training batch has all captions of its images, instead of captions of similar length: an
            image is then encoded once per epoch, and its captions share one memory, if `batch_size` is a multiple of
            their number. Also for data in which a caption's length depends on the image's content, since batches of
            similar length would then distort the statistics of batch normalisation.
        mirror: whether training images are mirrored left to right with probability ½, except those with "left" or
            "right" in a caption.
        crop: the smallest share of its area that a training image shows, stretched to the whole size; 1 shows all.
        features: None, or annotation vectors by image id; if set, batches contain them instead of images.
        mirrored_features: those of the mirrored images; needed if both `features` and `mirror` are set.
        places: None, or the (h, w) grid of annotation vectors and the positions of its cells; if set, training batches
            contain `CaptionBatch.regions`, to supervise attention.
    """

    features: Features | None = None
    mirrored_features: Features | None = None
    places: tuple[tuple[int, int], CellShift] | None = None
    grouped = False
    mirror = False
    crop = 1.0
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
        require_number("max_length", max_length, least=1)
        require_number("min_count", min_count, least=1)
        self.max_length = max_length
        self.min_count = min_count

    @abstractmethod
    def examples(self, split: Split) -> Sequence[CaptionedImage]:
        """The images of a split, cached, in a fixed order; empty if the data set has no such split."""

    @abstractmethod
    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        """The model's input, (3, h, w) uint8, of the same size for all images, and its geometry."""

    @cached_property
    def vocabulary(self) -> list[str]:
        """All words in the order of their ids, special tokens first; from the training captions only."""
        captions = (caption for example in self._examples("train") for caption in example.captions)
        return Vocabulary.build(captions, self.min_count, self.tokens).words

    @property
    def output_names(self) -> list[str]:
        """Names of the model's outputs: the vocabulary."""
        return self.vocabulary

    def report_words(self) -> None:
        """Log the unknown and truncated words of the training and validation captions.

        Raises:
            InputError: if there are more than `max_unknown`.
        """
        vocabulary = Vocabulary(self.vocabulary, self.tokens)
        for split, title in (("train", "training"), ("val", "validation")):
            counts = WordCounts()
            for example in self.examples(split):
                counts.add(example.captions, self.max_length)
            found = word_losses(counts, vocabulary, title, self.max_length, self.min_count)
            report_words(found, self.describe(), self.max_unknown)

    def references(self, split: Split) -> dict[str, list[list[str]]]:
        """The tokenised captions of each image, not truncated, by image id, for scoring.

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
        """Images of the test split, or of the validation split if there is no test split."""
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
        self._regions: dict[tuple[int, View], list[Tensor | None]] = {}

    def batch(self, pairs: np.ndarray, generator: torch.Generator | None = None) -> CaptionBatch:
        """The batch of these captions, by index; with a generator, images are mirrored and cropped at random.

        Each image occurs once, so all its captions in the batch see the same view.
        """
        rows, owner = np.unique(self.image[pairs], return_inverse=True)
        examples = [self.split_examples[row] for row in rows]
        images, features = None, self.data.features
        if features is None:
            images = torch.stack([self.data.load(example)[0] for example in examples])
        views = self._views(rows, generator, None if images is None else images.shape[-2:])
        tokens = self.tokens[torch.from_numpy(pairs), : int(self.lengths[pairs].max())].long()
        ids = [example.id for example in examples]
        if images is not None:
            images = torch.stack([view.of_image(image) for image, view in zip(images, views, strict=True)])
        else:
            features = _look_up(features, ids)
            if any(mirrored := [view.mirrored for view in views]):
                of_mirrored = [name for name, turned in zip(ids, mirrored, strict=True) if turned]
                features[torch.tensor(mirrored)] = _look_up(self.data.mirrored_features, of_mirrored)
        regions = None
        if self.data.places is not None and self.split == "train":
            regions = torch.zeros(*tokens[:, 1:].shape, math.prod(self.data.places[0]))
            for row, (pair, image) in enumerate(zip(pairs.tolist(), owner.tolist(), strict=True)):
                for t, region in enumerate(self._regions_of(pair, views[image])):
                    if region is not None:
                        regions[row, t] = region
        return CaptionBatch(images, features, torch.from_numpy(owner), tokens, ids, regions)

    def _views(self, rows: np.ndarray, generator: torch.Generator | None, size: tuple[int, int] | None) -> list[View]:
        """What a batch shows of these images (h, w), by index: all of each without a generator."""
        if generator is None:
            return [View()] * len(rows)
        mirrored = [False] * len(rows)
        if self.data.mirror:
            drawn = torch.rand(len(rows), generator=generator) < 0.5
            mirrored = (drawn & ~torch.from_numpy(self.sided[rows])).tolist()
        if self.data.crop == 1:
            return [View(mirrored=turned) for turned in mirrored]
        if size is None:
            raise InputError("random crops need images; leave out cached features, or set crop to 1")
        parts = random_parts(len(rows), size, self.data.crop, generator)
        return [View(*view) for view in zip(parts, mirrored, strict=True)]

    def _regions_of(self, pair: int, view: View) -> list[Tensor | None]:
        """For each word of a caption, the distribution of its region over the cells, (h w), sum 1; None if unknown."""
        if (found := self._regions.get((pair, view))) is not None:
            return found
        image = self.image[pair]
        example = self.split_examples[image]
        words = example.captions[pair - self.first[image]][: self.data.max_length]
        masks = (None if mask is None else view.of_mask(mask) for mask in self.data.regions(example.id, words))
        shares = [None if mask is None else coverage(mask, *self.data.places).ravel() for mask in masks]
        found = [
            torch.from_numpy(share / share.sum()).float() if share is not None and share.any() else None
            for share in shares
        ]
        if view.part is None:  # another part is seldom seen twice
            self._regions[pair, view] = found
        return found


def _sided(caption: list[str], vocabulary: Vocabulary) -> bool:
    """Whether a caption contains "left" or "right"."""
    text = vocabulary.join(caption)
    words = caption if vocabulary.tokens.spec == Words.spec else tokenize(text)
    return bool(SIDES & set(words) or SIDES_IN_CHINESE & set(text))


def _look_up(features: Features, ids: list[str]) -> Tensor:
    """(N, h, w, D) of these images, as a copy."""
    whole = getattr(features, "__getitems__", None)
    return whole(ids) if whole else torch.stack([features[i] for i in ids])


class _Pairs(TrainingBatches[CaptionBatch]):
    """Training batches of (image, caption) pairs."""

    def __init__(self, data: CaptionData, split: Split) -> None:
        self.captions = _Captions(data, split)
        super().__init__(len(self.captions.lengths), data.batch_size, data.seed)
        self.options = {"max_length": data.max_length, "grouped": data.grouped}  # captions are sorted by their lengths

    def order(self, rng: np.random.Generator) -> np.ndarray:
        if self.captions.data.grouped:
            first = self.captions.first
            return np.concatenate([np.arange(first[i], first[i + 1]) for i in rng.permutation(len(first) - 1)])
        shuffled = rng.permutation(self.count)
        return shuffled[np.argsort(self.captions.lengths[shuffled], kind="stable")]

    def share(self, items: np.ndarray, rank: int, world: int) -> np.ndarray:
        """If grouped, split by whole images, as long as there is one for each process."""
        image = np.searchsorted(self.captions.first, items, side="right")
        starts = np.flatnonzero(np.diff(image, prepend=-1))
        if not self.captions.data.grouped or len(starts) < world:
            return super().share(items, rank, world)
        begin, end = ((len(starts) * r) // world for r in (rank, rank + 1))
        return items[starts[begin] : starts[end] if end < len(starts) else len(items)]

    def make(self, items: np.ndarray, name: BatchName) -> CaptionBatch:
        if self.captions.data.grouped:
            items = np.sort(items)  # in the order of `batch`, so that an image's captions are consecutive
        return self.captions.batch(items, name.generator(self.seed))


class _Images(EvaluationImages[CaptionBatch]):
    """Images with all of their captions."""

    def __init__(self, data: CaptionData, split: Split) -> None:
        self.captions = _Captions(data, split)
        super().__init__(len(self.captions.split_examples))

    def __getitems__(self, images: Sequence[int]) -> CaptionBatch:
        first = self.captions.first
        pairs = np.concatenate([np.arange(first[i], first[i + 1]) for i in images])
        return self.captions.batch(pairs)
