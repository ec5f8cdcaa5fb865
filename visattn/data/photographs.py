"""Captioned photographs: Flickr8k, Flickr30k, COCO, and other data sets in their formats."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from visattn.data.annotations import Annotation, Layout, read_annotations
from visattn.data.captions import CaptionData, CaptionedImage
from visattn.data.coco_words import categories, objects
from visattn.data.inputs import to_input
from visattn.data.inspection import check_share, name_bad, unusable
from visattn.data.instances import Instances, coco_instances
from visattn.data.loading import Split
from visattn.data.losses import MAX_LEFT_OUT, MAX_UNKNOWN
from visattn.errors import InputError, require_number
from visattn.images import Fit, Geometry, ModelInput, fit_geometry
from visattn.images.reading import image_size, load_image
from visattn.metrics import Mentions
from visattn.vocabulary import Words, read_tokens, tokens_of

log = logging.getLogger(__name__)


class Photographs(CaptionData):
    """Captioned photographs in a folder.

    Splits come from the annotation file (Karpathy), from a second file (`val_annotations`), or, if neither has
    validation images, from holding out `val_fraction` of the training images: by image, so that no photograph is in
    both. A data set may have no test split as long as none is requested.

    Args:
        root: folder of the data set.
        annotations: the caption file, relative to `root` or absolute; see `read_annotations` for its layouts.
        images: the image folder, relative to `root` or absolute.
        val_annotations: a second caption file with the validation images (COCO has one file per split).
        instances: None, or a COCO instances file, relative to `root` or absolute, to score attention and the objects
            that captions name, and to supervise attention in training (`CaptionLoss.supervision`): the region of a word
            is that of the instances of the category it names, if any (`visattn.data.coco_words`), if their outlines are
            known (`visattn.data.instances`). Images are matched by id, or else by file name.
        layout: format of the caption files; "auto" detects it from their content.
        image_size: size of the model's input in pixels, (h, w) or the side of a square.
        fit: how images are resized; see `visattn.images.fit_image`.
        val_fraction: share of the training images to hold out if there are no validation images; the choice is a
            function of `seed` and the images' ids.
        restval: train also on the images that Karpathy's COCO splits call "restval", as in most published results.
        mirror: whether training images are mirrored left to right with probability ½, as a function of (seed, epoch),
            except those with "left" or "right" in a caption.
        crop: the smallest share of its area that a training image shows, as a function of (seed, epoch): a random part,
            stretched to `image_size`; 1 shows all. For training the encoder, so not with cached features.
        grouped: whether a training batch has all captions of its images, so that the encoder, if it is trained, sees an
            image once per epoch, instead of captions of similar length.
        tokens: tokenisation of captions: "words", as in published scores; "characters", for scripts without spaces
            between words; or the JSON file of a tokenizer of Hugging Face's `tokenizers`, relative to `root` or
            absolute. `max_length` then counts such tokens, and checkpoints contain the tokenizer.
        max_left_out: maximum share of a file's captions that may be left out because they have no words or no image.
        max_unknown: maximum share of a split's words that may be unknown or truncated.
        limit: use only the first images of each split, at most this many; for a quick trial.
        on_bad_image: handling of images that are missing, damaged or cannot be fitted to `image_size`. "error" stops
            with an error. "skip" loads every image once before the first epoch, logs those that cannot be used, and
            leaves them out everywhere; more than 1% of them is an error. Since this is done before the first batch,
            batches and their order remain a function of (seed, epoch); the vocabulary is that of all captions,
            including those of skipped images.
        batch_size: (image, caption) pairs of a training batch, per process.
        eval_batch_size: images of an evaluation batch.
        max_length: words of a caption in a batch; longer captions are truncated there, but not in references.
        min_count: words that occur less often in the training captions are unknown.
        workers: loading processes; 0 loads in the training process.
        seed: of the order, and of the held-out images.

    Raises:
        InputError: if an option is invalid. Faults in the files are reported when they are first read: by
            `vocabulary`, `examples`, or `setup`, which checks that every image exists.
    """

    def __init__(
        self,
        root: Path,
        annotations: str,
        images: str = "images",
        val_annotations: str | None = None,
        instances: str | None = None,
        layout: Layout = "auto",
        image_size: int | tuple[int, int] = 224,
        fit: Fit = "crop",
        val_fraction: float = 0.1,
        restval: bool = True,
        mirror: bool = False,
        crop: float = 1.0,
        grouped: bool = False,
        tokens: str = Words.spec,
        max_left_out: float = MAX_LEFT_OUT,
        max_unknown: float = MAX_UNKNOWN,
        limit: int | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        batch_size: int = 32,
        eval_batch_size: int = 32,
        max_length: int = 20,
        min_count: int = 5,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, max_length, min_count, workers, seed)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        require_number("image_size", min(self.image_size), least=1)
        require_number("val_fraction", val_fraction, least=0, below=1)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1, or left out")
        require_number("max_left_out", max_left_out, least=0, most=1)
        require_number("max_unknown", max_unknown, least=0, most=1)
        self.root = Path(root)
        self.tokens = read_tokens(tokens, self.root).spec
        self.max_left_out, self.max_unknown = max_left_out, max_unknown
        self.annotations = self.root / annotations
        self.images = self.root / images
        self.val_annotations = None if val_annotations is None else self.root / val_annotations
        self.instances = None if instances is None else self.root / instances
        self.layout: Layout = layout
        self.fit: Fit = fit
        self.val_fraction = val_fraction
        self.restval = restval
        self.mirror = mirror
        require_number("crop", crop, above=0, most=1)
        self.crop, self.grouped = crop, grouped
        self.limit = limit
        self.on_bad_image = on_bad_image
        self._looked_through: set[Split] = set()
        self._last_regions: tuple[str | None, dict[str, np.ndarray | None]] = (None, {})

    def setup(self, stage: str | None = None) -> None:
        """Check that the images and instances that the stage needs exist, before the first epoch."""
        splits = self._splits_of(stage)
        if self.features is None and self.on_bad_image == "skip":
            self._leave_out_bad_images(splits)
        elif self.features is None:
            _check_present(self.images, [example.path for split in splits for example in self.examples(split)])
        if self.instances is not None and stage != "predict":
            self._check_instances()
        if stage == "fit":
            self.report_words()

    def examples(self, split: Split) -> Sequence[CaptionedImage]:
        return self._splits[split]

    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        fit = ModelInput(self.image_size, self.fit).fit_image
        return to_input(load_image(example.path), fit, str(example.path))

    def regions(self, image_id: str, words: list[str]) -> list[np.ndarray | None]:
        """Regions of the objects that the words of a caption name: masks (h, w) over the input's pixels.

        A region covers all instances of the category. It is None for a word that names no category, or one whose
        category is absent from the image, only partly outlined, or cropped off.

        Raises:
            InputError: if the instances file cannot be read, or has another aspect ratio for an image.
        """
        if self.instances is None:
            return super().regions(image_id, words)
        if self._last_regions[0] != image_id:  # captions of an image are consecutive
            self._last_regions = image_id, {}
        known = self._last_regions[1]
        named = categories(words)
        for category in {name for name in named if name} - known.keys():
            known[category] = self._region(image_id, category)
        return [known[category] if category else None for category in named]

    def mentions(self, image_id: str, caption: str) -> Mentions | None:
        """The objects that a caption names, and those in the image: annotated there, or named in its captions.

        Raises:
            InputError: if the instances file cannot be read.
        """
        if self.instances is None:
            return None
        things, example = self._instances, self._by_id[image_id]
        key = things.find(image_id, example.path.name)
        if key is None:
            return None
        tokens = tokens_of(self.tokens)
        told = (name for words in example.captions for name in objects(tokens.join(words)))
        return Mentions(tuple(objects(caption)), things.present(key) | frozenset(told))

    def _region(self, image_id: str, category: str) -> np.ndarray | None:
        things, path = self._instances, self._by_id[image_id].path
        key = things.find(image_id, path.name)
        mask = None if key is None else things.mask(key, category)
        if mask is None:
            return None
        original, stated = image_size(path), mask.shape
        # Up to a pixel of the smaller one.
        if abs(original[0] * stated[1] - original[1] * stated[0]) > max(original + stated):
            raise InputError(
                f"{path} is {original[1]}×{original[0]} pixels, but {self.instances} says {stated[1]}×{stated[0]}: "
                "the aspect ratios must agree after EXIF rotation; give the images that were annotated"
            )
        seen = fit_geometry(original, self.image_size, self.fit).resized(stated).to_input_mask(mask)
        return seen if seen.any() else None

    def describe(self) -> str:
        return str(self.annotations)

    def _splits_of(self, stage: str | None) -> tuple[Split, ...]:
        """The splits whose images must exist for a stage: those that it reads; for training all, as a test follows."""
        if stage in ("validate", "test"):
            return ("val",) if stage == "validate" else ("test",)
        if stage == "predict":
            return ("test",) if self.examples("test") else ("val",)
        return ("train", "val", "test")

    def _leave_out_bad_images(self, splits: Sequence[Split]) -> None:
        if not (new := set(splits) - self._looked_through):
            return
        self.vocabulary  # noqa: B018 - built from all captions, so that word ids do not depend on skipped images
        examples = [example for split in splits if split in new for example in self.examples(split)]
        rank, world = self.process
        bad = {example.id: why for example, why in unusable(self.load, examples[rank::world], self.workers)}
        if world > 1:  # each process checks its share; all leave out the same images
            shares = [self.trainer.strategy.broadcast(bad, src=other) for other in range(world)]
            bad = {name: why for share in shares for name, why in share.items()}
        if bad:
            name_bad(bad, self.describe())
            log.warning("%s: %d of %d images are left out", self.describe(), len(bad), len(examples))
            check_share(bad, len(examples), self.describe())
        self._splits = {name: [e for e in split if e.id not in bad] for name, split in self._splits.items()}
        self._looked_through |= new

    def _check_instances(self) -> None:
        """Report validation and test images without instances before they are silently not scored."""
        scored, trained = (
            [example for split in splits for example in self.examples(split)]
            for splits in (("val", "test"), ("train",))
        )
        found, in_training = (
            sum(self._instances.find(example.id, example.path.name) is not None for example in examples)
            for examples in (scored, trained)
        )
        if scored and not found and not in_training:
            raise InputError(
                f"{self.instances} has none of the {len(scored)} validation and test images, such as "
                f"{scored[0].id}; give the instances of the same images"
            )
        if found < len(scored):
            missing = len(scored) - found
            log.warning("%s lacks %d of %d validation and test images", self.instances, missing, len(scored))

    @cached_property
    def _instances(self) -> Instances:
        return coco_instances(self.instances)

    @cached_property
    def _by_id(self) -> dict[str, CaptionedImage]:
        """The images of all splits, by id."""
        return {example.id: example for split in self._splits.values() for example in split}

    def _read(self, path: Path) -> list[Annotation]:
        return read_annotations(path, self.layout, self.tokens, self.max_left_out)

    @cached_property
    def _splits(self) -> dict[str, list[CaptionedImage]]:
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such folder; set root to the folder of the data set")
        splits: dict[str | None, list[Annotation]] = defaultdict(list)
        for annotation in self._read(self.annotations):
            splits[annotation.split].append(annotation)
        train = splits["train"] + splits[None] + (splits["restval"] if self.restval else [])
        if splits["restval"] and not self.restval:
            log.info("%s: its %d images of the restval split are not used", self.annotations, len(splits["restval"]))
        val = splits["val"]
        if self.val_annotations is not None:
            if val:
                what = "its %d images of the val split are not used, since val_annotations is given"
                log.warning(f"%s: {what}", self.annotations, len(val))
            val = self._read(self.val_annotations)
            both = {a.id for a in train} & {a.id for a in val}
            if both:
                raise InputError(
                    f"{self.val_annotations} has {len(both)} training images of {self.annotations}, such as "
                    f"{min(both)}; use separate images, or different ids if the images differ"
                )
        if not val:
            held = _held_out([a.id for a in train], self.val_fraction, self.seed)
            train, val = [a for a in train if a.id not in held], [a for a in train if a.id in held]
        if not train:
            raise InputError(f"{self.annotations} has no training images; at least one must be in the train split")
        return {
            name: [CaptionedImage(a.id, a.captions, self.images / a.file) for a in split[: self.limit]]
            for name, split in (("train", train), ("val", val), ("test", splits["test"]))
        }


def _held_out(ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """A share of the ids, independent of their order: those with the smallest hashes."""
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    return set(ranked[: round(fraction * len(ranked))])


def _check_present(folder: Path, paths: list[Path]) -> None:
    """Check that the files exist, with one listing per folder, since shared disks are often slow."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set images to the image folder, relative to root")
    there = {path for parent in {path.parent for path in paths} if parent.is_dir() for path in parent.iterdir()}
    missing = [path for path in paths if path not in there]
    if missing:
        some = ", ".join(str(path.relative_to(folder)) for path in missing[:3])
        raise InputError(f"{len(missing)} of {len(paths)} annotated images are not in {folder}: {some} …")
