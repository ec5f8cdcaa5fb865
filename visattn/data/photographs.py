"""Photographs with captions: Flickr8k, Flickr30k, COCO, and whatever comes in their layouts."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from visattn.data.annotations import Annotation, Layout, read_annotations
from visattn.data.captions import CaptionData, CaptionedImage
from visattn.data.images import load_image, to_tensor
from visattn.data.loading import Split
from visattn.errors import InputError
from visattn.geometry import Fit, Geometry, fit_image


class Photographs(CaptionData):
    """Captioned photographs in a folder.

    Splits come from the annotation file (Karpathy), from a second file (`val_annotations`), or, where neither names a
    validation image, from holding out `val_fraction` of the training images: by image, so that no photograph is in
    both. A data set without a test split is fine until one asks for it.

    Args:
        root: folder of the data set.
        annotations: the caption file, relative to `root` or absolute; see `read_annotations` for its layouts.
        images: folder of the pictures, relative to `root` or absolute.
        val_annotations: a second caption file, whose images validate (COCO has one for each split).
        layout: of the caption files; "auto" tells by their content.
        image_size: of the model's input in pixels, (h, w) or the side of a square.
        fit: how a photograph is made that size; see `visattn.geometry.fit_image`.
        val_fraction: share of the training images to hold out where no validation images are named; the choice is a
            function of `seed` and the images' ids.
        restval: train on the images that the Karpathy splits of COCO call "restval", as most published results do.
        limit: at most so many images of each split, the first of the file; for a quick trial.
        batch_size: (image, caption) pairs of a training batch, for one process.
        eval_batch_size: images of an evaluation batch.
        max_length: words of a caption that a batch holds; longer captions are cut. References and vocabulary are uncut.
        min_count: a word that occurs less often in the training captions is unknown.
        workers: processes that load; 0 loads in the training process itself.
        seed: of the order, and of what is held out.

    Raises:
        InputError: where an option makes no sense. A fault of the files is told when they are first needed: by
            `vocabulary`, `examples`, or `setup`, which looks whether every picture is there.
    """

    def __init__(
        self,
        root: Path,
        annotations: str,
        images: str = "images",
        val_annotations: str | None = None,
        layout: Layout = "auto",
        image_size: int | tuple[int, int] = 224,
        fit: Fit = "crop",
        val_fraction: float = 0.1,
        restval: bool = True,
        limit: int | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 32,
        max_length: int = 20,
        min_count: int = 5,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, max_length, min_count, workers, seed)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if min(self.image_size) < 1:
            raise InputError(f"image_size is {image_size}; it must be at least 1")
        if not 0 <= val_fraction < 1:
            raise InputError(f"val_fraction is {val_fraction}; it must be at least 0 and less than 1")
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1, or left out")
        self.root = Path(root)
        self.annotations = self.root / annotations
        self.images = self.root / images
        self.val_annotations = None if val_annotations is None else self.root / val_annotations
        self.layout: Layout = layout
        self.fit: Fit = fit
        self.val_fraction = val_fraction
        self.restval = restval
        self.limit = limit

    def setup(self, stage: str | None = None) -> None:
        """Look whether every picture that the annotations name is there, before the first epoch does."""
        if self.features is None:
            examples = [example for split in self._splits.values() for example in split]
            _check_present(self.images, [example.path for example in examples])

    def examples(self, split: Split) -> Sequence[CaptionedImage]:
        return self._splits[split]

    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        image, geometry = fit_image(load_image(example.path), self.image_size, self.fit)
        return to_tensor(image), geometry

    def describe(self) -> str:
        return str(self.annotations)

    @cached_property
    def _splits(self) -> dict[str, list[CaptionedImage]]:
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such folder; root is where the data set lies")
        splits: dict[str | None, list[Annotation]] = defaultdict(list)
        for annotation in read_annotations(self.annotations, self.layout):
            splits[annotation.split].append(annotation)
        train = splits["train"] + splits[None] + (splits["restval"] if self.restval else [])
        val = splits["val"]
        if self.val_annotations is not None:
            val = read_annotations(self.val_annotations, self.layout)
            both = {a.id for a in train} & {a.id for a in val}
            if both:
                raise InputError(
                    f"{self.val_annotations} has {len(both)} images that {self.annotations} trains on, such as "
                    f"{min(both)}; give it images of its own"
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
    """A share of the ids, whatever their order: those whose hash comes first."""
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    return set(ranked[: round(fraction * len(ranked))])


def _check_present(folder: Path, paths: list[Path]) -> None:
    """One listing of each folder, not a question for each file: data sets often lie on slow shared disks."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; images is where the pictures lie, relative to root")
    there = {path for parent in {path.parent for path in paths} if parent.is_dir() for path in parent.iterdir()}
    missing = [path for path in paths if path not in there]
    if missing:
        some = ", ".join(str(path.relative_to(folder)) for path in missing[:3])
        raise InputError(f"{len(missing)} of {len(paths)} annotated images are not in {folder}: {some} …")
