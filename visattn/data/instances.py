"""Object masks from a COCO instances file, given as polygons or run lengths."""

import logging
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visattn.data.coco_words import WORDS
from visattn.errors import InputError
from visattn.files import read_json

_LINES = 4  # scan lines per row of pixels, for polygons
_FAR = 1_000_000  # pixels; no image is so large

log = logging.getLogger(__name__)


class _Picture(NamedTuple):
    """An image of the file: its name, its (H, W), the outlines of each category's instances, and all its categories."""

    file: str
    size: tuple[int, int]
    outlines: dict[str, list[Any]]
    present: set[str]


class Instances:
    """The instances of a COCO file, as one mask per category and image: the union of its instances.

    The format is COCO's: ``{"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id",
    "category_id", "segmentation"}], "categories": [{"id", "name"}]}``. A segmentation is a list of polygons
    ``[x, y, x, y, …]`` in pixels from the image's top-left edge, or run lengths ``{"counts", "size"}``, plain or in
    COCO's compressed text. Crowds count like other instances.

    A category is *unknown* in an image, and has no mask there, if any of its instances has no outline: only a box, a
    crowd without run lengths, no polygon of at least three points. A box also covers the background, and without it
    attention to that instance would count as a miss. Their number is logged.

    Args:
        path: of the JSON file. It is read at once; masks are drawn on demand.

    Raises:
        InputError: if the file is missing, is not JSON or has another format, if an image occurs twice, or a category
            is not defined. Annotations of images that are not in the file are ignored, since a subset of COCO may come
            with all annotations.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path, "instances file")
        try:
            self.categories, self._pictures, unknown = _read(path, content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path} is not in COCO's instances format: {what}") from error
        self._by_file = {Path(picture.file).name: key for key, picture in self._pictures.items()}
        if unknown:
            log.warning(
                "%s: %d instances have no outline; where their category is in their image is unknown (%d such pairs)",
                path,
                sum(unknown.values()),
                len(unknown),
            )

    def find(self, image_id: str, file: str | None = None) -> str | None:
        """The id of an image in the file, matched by id, or else by file name; None if it is not there."""
        return image_id if image_id in self._pictures else self._by_file.get(Path(file or "").name)

    def present(self, image_id: str) -> frozenset[str]:
        """The categories in an image of the file, with or without outlines."""
        return frozenset(self._pictures[image_id].present)

    def mask(self, image_id: str, category: str) -> np.ndarray | None:
        """The mask of a category in an image.

        A pixel is inside if polygons cover at least half of it. Polygons that cross themselves are filled by the
        even-odd rule.

        Returns:
            (H, W) bool, of the size stated in the file; None if the image has no such instance, if the category is
            unknown, or if its instances are too thin to cover half of any pixel.

        Raises:
            InputError: if run lengths do not match the image, or a polygon's corners are not valid coordinates.
        """
        picture = self._pictures[image_id]
        outlines = picture.outlines.get(category)
        if not outlines:
            return None
        polygons = [polygon for outline in outlines if isinstance(outline, list) for polygon in outline]
        try:
            mask = _draw(polygons, picture.size)
            for runs in (outline for outline in outlines if isinstance(outline, dict)):
                mask |= decode_runs(runs["counts"], picture.size)
        except ValueError as error:
            raise InputError(
                f"{self.path}: the outline of '{category}' in image {image_id} cannot be used: {error}"
            ) from error
        return mask if mask.any() else None

    def masks(self, image_id: str) -> dict[str, np.ndarray]:
        """The masks of all categories in an image, by name."""
        masks = {name: self.mask(image_id, name) for name in self._pictures[image_id].outlines}
        return {name: mask for name, mask in masks.items() if mask is not None}


def coco_instances(path: Path) -> Instances:
    """The instances of a file with COCO's 80 categories; others are counted in the log, and match no word.

    Raises:
        InputError: as `Instances`, and if it has none of those categories.
    """
    things = Instances(path)
    strange = sorted(set(things.categories) - WORDS.keys())
    if len(strange) == len(things.categories):
        raise InputError(f"{path} has none of COCO's 80 categories, which are the only supported ones")
    if strange:
        log.warning("%s: %d categories are not COCO's and are ignored, such as %s", path, len(strange), strange[0])
    return things


def _read(path: Path, content: Any) -> tuple[list[str], dict[str, _Picture], Counter[tuple[str, str]]]:
    """The category names, the images by id, and the number of missing outlines by (image, category)."""
    if not isinstance(content, dict):
        raise TypeError("it is not an object with images, annotations and categories")
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    pictures: dict[str, _Picture] = {}
    for image in content["images"]:
        key, size = str(image["id"]), (image["height"], image["width"])
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"image {key} is {size[1]} wide and {size[0]} high")
        if key in pictures:
            raise InputError(f"{path} has the image id {key} more than once; give each image one entry")
        pictures[key] = _Picture(str(image["file_name"]), size, defaultdict(list), set())
    unknown: Counter[tuple[str, str]] = Counter()
    annotations = content["annotations"]
    if annotations and not any(str(annotation["image_id"]) in pictures for annotation in annotations):
        log.warning(
            "%s: none of its %d annotations is of an image that it lists; image_id %s has no such id",
            path,
            len(annotations),
            annotations[0]["image_id"],
        )
    for annotation in content["annotations"]:
        key, category = str(annotation["image_id"]), annotation["category_id"]
        if category not in names:
            raise InputError(f"{path} has annotations of category {category}, which its 'categories' do not name")
        if key in pictures:
            outline = _outline(annotation, pictures[key].size)
            pictures[key].outlines[names[category]].append(outline)
            pictures[key].present.add(names[category])
            unknown[key, names[category]] += not outline
    unknown = +unknown  # without the zeros
    for key, name in unknown:
        del pictures[key].outlines[name]
    return list(names.values()), pictures, unknown


def _outline(annotation: dict[str, Any], size: tuple[int, int]) -> list[list[float]] | dict[str, Any] | None:
    """An annotation's polygons or run lengths, checked; None or empty if it has none."""
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        if list(outline["size"]) != list(size) or not isinstance(outline["counts"], str | list):
            raise ValueError(
                f"run lengths of image {annotation['image_id']} are of {outline['size']} pixels, not {list(size)}"
            )
        return outline
    if outline is None:
        return None
    if not isinstance(outline, list):
        raise TypeError(f"a segmentation of image {annotation['image_id']} is neither polygons nor run lengths")
    for polygon in outline:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(f"a polygon of image {annotation['image_id']} is not a list [x, y, x, y, …]")
    return [polygon for polygon in outline if len(polygon) >= 6]


def _draw(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, True where the polygons cover at least half of a pixel, added up."""
    share = np.zeros(size)
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, dtype=float).reshape(-1, 2)
        except TypeError as error:
            raise ValueError("a polygon has a corner that is not a number") from error
        if not np.abs(corners).max() < _FAR:  # false for NaN, too
            raise ValueError(f"a polygon has a corner {_FAR:,} pixels away or more")
        (left, top), (right, bottom) = (
            np.clip(edge.astype(int), 0, size[::-1])
            for edge in (np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)))
        )
        if left < right and top < bottom:
            share[top:bottom, left:right] += _covered(corners - (left, top), (bottom - top, right - left))
    return share >= 0.5 - 1e-9


def _covered(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) share of each pixel that a polygon covers: exact along rows, the mean of `_LINES` scan lines per row.

    Args:
        corners: (N, 2), each (x, y) in pixels.
        size: (h, w) of the image.
    """
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    line_y = (np.arange(size[0] * _LINES) + 0.5) / _LINES
    edge, line = np.nonzero((y[:, None] <= line_y) != (next_y[:, None] <= line_y))
    crossing = x[edge] + (line_y[line] - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    crossing = np.clip(crossing, 0, size[1])
    order = np.lexsort((crossing, line))
    crossing, row = crossing[order], line[order] // _LINES
    # Even-odd rule: a line is inside from the first crossing to the second, from the third to the fourth …
    sign = 1 - 2 * (np.arange(len(row)) % 2)
    column = np.floor(crossing).astype(int)
    right_part = column + 1 - crossing  # of the crossed pixel; all later pixels are to the right
    width = size[1] + 2
    change = np.bincount(row * width + column, sign * right_part, size[0] * width)
    change += np.bincount(row * width + column + 1, sign * (1 - right_part), size[0] * width)
    return change.reshape(size[0], width).cumsum(axis=1)[:, : size[1]] / _LINES


def decode_runs(counts: list[int] | str, size: tuple[int, int]) -> np.ndarray:
    """Decode COCO's run lengths to a mask.

    Runs go down the columns, from left to right, and alternate between False and True, starting with False, possibly
    of length 0. In compressed text, each character minus 48 has five bits of a number, lowest first, and a sixth bit
    that says whether more follow; bit 4 of the last character is the sign. From the fourth number on, values are
    differences from the number two places before.

    Args:
        counts: the run lengths, as a list or as compressed text.
        size: (H, W) of the mask in pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: if the counts are not valid run lengths, or their sum is not H·W.
    """
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("the run lengths must be integers of at least 0")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"the run lengths add up to {sum(runs)} pixels, not {size[0] * size[1]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0]).T


def _decompress(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the compressed run lengths have a character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end in the middle of a number")
    return runs
