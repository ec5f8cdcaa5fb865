"""Generated scenes of coloured shapes, with captions from a grammar and a mask for every word that names an object.

The built-in data set: it needs no download, images can have any size, and the place of each word is known, so attention
can be scored. A scene is a function of (seed, split, index).
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visattn.data.captions import CaptionData, CaptionedImage
from visattn.data.classification import ClassificationData
from visattn.data.inputs import to_tensor
from visattn.data.loading import STREAMS, Split
from visattn.errors import InputError, require_number
from visattn.images import Fit, Geometry
from visattn.metrics import Facts, Grammar

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 140, 32),
    "yellow": (246, 211, 62),
    "green": (46, 160, 88),
    "blue": (48, 106, 216),
    "purple": (138, 72, 178),
}
SIZES = {"small": (0.10, 0.125), "large": (0.18, 0.22)}  # radius, relative to the image's side
RELATIONS = ("left of", "right of", "above", "below")
GRAMMAR = Grammar(tuple(SIZES), tuple(COLOURS), SHAPES, RELATIONS)
MOST_THINGS = 5  # more do not fit

_SUPERSAMPLING = 4


class Thing(NamedTuple):
    """One shape; centre and radius relative to the image's side, from the top left."""

    shape: str
    colour: str
    size: str
    y: float
    x: float
    radius: float

    def outline(self) -> np.ndarray:
        """(N, 2) corners (y, x) of the shape, relative to the image's side."""
        return np.array([self.y, self.x]) + self.radius * _unit_outline(self.shape)

    def fits(self, words: Sequence[str]) -> bool:
        """Whether all of these words describe it."""
        return all(word in (self.shape, self.colour, self.size) for word in words)


class Scene(NamedTuple):
    """Things that do not touch, on a plain background; no two have the same shape and colour."""

    things: tuple[Thing, ...]
    ground: int  # brightness of the background's centre, 0 to 255

    def picture(self, side: int) -> Image.Image:
        """The scene as an antialiased RGB image of `side` × `side` pixels."""
        return painted(background(side, self.ground), self.things, _SUPERSAMPLING)

    def mask(self, things: Sequence[Thing], side: int) -> np.ndarray:
        """(side, side) bool, True where any of these things covers at least half of a pixel."""
        return np.asarray(painted(Image.new("L", (side, side)), things, _SUPERSAMPLING)) >= 128

    def referents(self, words: Sequence[str]) -> list[tuple[Thing, ...]]:
        """The things that each word of a caption names; empty if it names none, or none in the scene.

        A noun phrase is a sequence of size and colour words that ends in a shape. All of its words name the things that
        match the whole phrase: in "a red circle above a blue circle" the first "circle" is the red one.
        """
        named: list[tuple[Thing, ...]] = [()] * len(words)
        start = None
        for i, word in enumerate(words):
            if word in SIZES or word in COLOURS or word in SHAPES:
                start = i if start is None else start
                if word in SHAPES:
                    phrase = slice(start, i + 1)
                    things = tuple(thing for thing in self.things if thing.fits(words[phrase]))
                    named[phrase] = [things] * (i + 1 - start)
                    start = None
            else:
                start = None
        return named

    def facts(self) -> Facts:
        """The content of the scene; the relation of two things is on the axis on which they are farther apart."""
        return Facts(
            [{"size": thing.size, "colour": thing.colour, "shape": thing.shape} for thing in self.things],
            [[_relation(a, b) for b in self.things] for a in self.things],
            GRAMMAR,
        )

    def caption(self, rng: np.random.Generator) -> list[str]:
        """A random true caption."""
        order = rng.permutation(len(self.things))
        names = [self._name(self.things[i], sized=rng.random() < 0.5) for i in order]
        if len(names) == 1:
            opening = ("", "there is ")[rng.integers(2)]
            return f"{opening}{names[0]}".split()
        relation = _relation(self.things[order[0]], self.things[order[1]])
        return " and ".join([f"{names[0]} {relation} {names[1]}", *names[2:]]).split()

    @staticmethod
    def _name(thing: Thing, sized: bool) -> str:
        name = f"{thing.size} {thing.colour} {thing.shape}" if sized else f"{thing.colour} {thing.shape}"
        return f"an {name}" if name.startswith("o") else f"a {name}"


def make_scene(rng: np.random.Generator, count: int, sizes: Sequence[str] | None = None) -> Scene:
    """A random scene of `count` things, of the given sizes, in order, or of random sizes."""
    kinds = rng.choice(len(SHAPES) * len(COLOURS), size=count, replace=False)
    tries = 1 if count <= 3 else 50  # from four things on, restarting at each failure would take seconds
    while True:
        things: list[Thing] = []
        for i, kind in enumerate(kinds):
            for _ in range(tries):
                size = sizes[i] if sizes else tuple(SIZES)[rng.integers(len(SIZES))]
                radius = rng.uniform(*SIZES[size])
                y, x = rng.uniform(radius + 0.02, 1 - radius - 0.02, size=2)
                colour = tuple(COLOURS)[kind // len(SHAPES)]
                thing = Thing(SHAPES[kind % len(SHAPES)], colour, size, float(y), float(x), float(radius))
                if all(_apart(thing, other) for other in things):
                    things.append(thing)
                    break
        if len(things) == count:
            return Scene(tuple(things), int(rng.integers(205, 246)))


def _apart(a: Thing, b: Thing) -> bool:
    """Whether two things do not touch, and are not so diagonal to each other that their relation is ambiguous."""
    dy, dx = abs(a.y - b.y), abs(a.x - b.x)
    return max(dy, dx) > a.radius + b.radius + 0.03 and max(dy, dx) > 1.3 * min(dy, dx)


def _relation(a: Thing, b: Thing) -> str:
    if abs(a.x - b.x) > abs(a.y - b.y):
        return "left of" if a.x < b.x else "right of"
    return "above" if a.y < b.y else "below"


@cache
def _unit_outline(shape: str) -> np.ndarray:
    """(N, 2) corners (y, x) of a shape within the unit circle, of about equal visual weight."""

    def ring(corners: int, turn: float, radii: Sequence[float] = (1.0,)) -> np.ndarray:
        angle = np.arange(corners) * 2 * np.pi / corners + turn
        radius = np.resize(radii, corners)
        return np.stack([-radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    outlines: dict[str, Callable[[], np.ndarray]] = {
        "circle": lambda: 0.92 * ring(64, 0.0),
        "square": lambda: 1.16 * ring(4, np.pi / 4),
        "triangle": lambda: 1.08 * ring(3, 0.0) + np.array([0.18, 0.0]),
        "star": lambda: 1.1 * ring(10, 0.0, (1.0, 0.42)),
        "cross": lambda: _cross(0.98, 0.34),
    }
    return outlines[shape]()


def _cross(long: float, short: float) -> np.ndarray:
    arm = [(-long, -short), (-long, short), (-short, short)]
    turns = [np.array([[0, 1], [-1, 0]])] * 3
    corners = [np.array(arm)]
    for turn in turns:
        corners.append(corners[-1] @ turn.T)
    return np.concatenate(corners)


@cache
def _vignette(side: int) -> np.ndarray:
    axis = np.linspace(-1, 1, side)
    return axis[:, None] ** 2 + axis[None, :] ** 2


def background(side: int, ground: int) -> Image.Image:
    """A warm light grey, slightly darker towards the corners, so that the background is not constant."""
    light = ground - 14 * _vignette(side)
    return Image.fromarray(np.stack([light, light - 3, light - 9], axis=-1).clip(0, 255).astype(np.uint8))


def painted(ground: Image.Image, things: Iterable[Thing], finer: int) -> Image.Image:
    """A square image with things on it, white if it is grey; its pixels are the means of `finer` × `finer` smaller."""
    side, fine = ground.width, ground.width * finer
    picture = ground.resize((fine, fine), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for thing in things:
        fill = 255 if ground.mode == "L" else COLOURS.get(thing.colour, (255, 255, 255))
        draw.polygon([(x * fine, y * fine) for y, x in thing.outline()], fill=fill)
    return picture.resize((side, side), Image.Resampling.BOX)


class ShapesCaptions(CaptionData):
    """Scenes of one to three shapes, or more, with five captions each, which name all of them.

    Args:
        train_size: number of training scenes.
        val_size: number of validation scenes.
        test_size: number of test scenes.
        image_size: (h, w) of the images, h = w, in pixels.
        batch_size: see `CaptionData`.
        eval_batch_size: see `CaptionData`.
        max_length: see `CaptionData`.
        min_count: see `CaptionData`.
        workers: see `CaptionData`.
        seed: see `CaptionData`; also of the scenes.
        things: maximum number of shapes in a scene, from 1 to 5; numbers from 1 on are equally likely.

    Raises:
        InputError: if the images are not square, or an option is out of its range.
    """

    fit: Fit = "squash"
    grouped = True
    captions_per_image = 5

    def __init__(
        self,
        train_size: int = 4000,
        val_size: int = 250,
        test_size: int = 500,
        image_size: tuple[int, int] = (64, 64),
        batch_size: int = 80,
        eval_batch_size: int = 64,
        max_length: int = 25,
        min_count: int = 1,
        workers: int = 0,
        seed: int = 0,
        things: int = 3,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, max_length, min_count, workers, seed)
        self.image_size = square(image_size)
        require_number("things", things, least=1, most=MOST_THINGS)
        self.things = things
        self.sizes: dict[Split, int] = split_sizes(train_size, val_size, test_size)
        self._examples_of: dict[Split, list[CaptionedImage]] = {}
        self._scenes: dict[str, Scene] = {}
        self._pictures: dict[str, Tensor] = {}

    def scene(self, image_id: str) -> Scene:
        """The scene with the id "split-index"."""
        if image_id not in self._scenes:
            rng = self._rng(image_id)
            self._scenes[image_id] = make_scene(rng, count=int(rng.integers(1, self.things + 1)))
        return self._scenes[image_id]

    def examples(self, split: Split) -> list[CaptionedImage]:
        if split not in self._examples_of:
            self._examples_of[split] = [self._example(f"{split}-{i}") for i in range(self.sizes[split])]
        return self._examples_of[split]

    def load(self, example: CaptionedImage) -> tuple[Tensor, Geometry]:
        if example.id not in self._pictures:
            self._pictures[example.id] = to_tensor(self.scene(example.id).picture(self.image_size[0]))
        return self._pictures[example.id], Geometry.identity(self.image_size)

    def regions(self, image_id: str, words: list[str]) -> list[np.ndarray | None]:
        scene = self.scene(image_id)
        return [scene.mask(things, self.image_size[0]) if things else None for things in scene.referents(words)]

    def facts(self, image_id: str) -> Facts:
        return self.scene(image_id).facts()

    def _rng(self, image_id: str, stream: int = 0) -> np.random.Generator:
        split, index = image_id.split("-")
        return np.random.default_rng([self.seed, STREAMS[split], int(index), stream])

    def _example(self, image_id: str) -> CaptionedImage:
        scene, rng = self.scene(image_id), self._rng(image_id, stream=1)
        return CaptionedImage(image_id, [scene.caption(rng) for _ in range(self.captions_per_image)])


class GeneratedClasses(ClassificationData):
    """Base of generated scenes with a class each; `sizes` are the numbers of training, validation and test scenes."""

    fit: Fit = "squash"

    def __init__(self, sizes: tuple[int, int, int], image_size: tuple[int, int], **options: Any) -> None:
        super().__init__(flip=True, **options)
        self.image_size = square(image_size)
        self.sizes: dict[Split, int] = split_sizes(*sizes)
        self._tensors: dict[Split, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def scene(self, split: Split, index: int) -> Any:
        """The scene with this index, of class ``index % len(class_names)``; it has a `picture` as `Scene` has."""

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        if split not in self._tensors:
            images = torch.empty(self.sizes[split], 3, *self.image_size, dtype=torch.uint8)
            for i in range(len(images)):
                images[i] = to_tensor(self.scene(split, i).picture(self.image_size[0]))
            self._tensors[split] = images, torch.arange(len(images)) % len(self.class_names)
        return self._tensors[split]


class ShapesClasses(GeneratedClasses):
    """Scenes of one large and two small things; the class is the colour of the large one.

    Args:
        train_size: number of training scenes; classes are balanced in each split, up to one scene.
        val_size: number of validation scenes.
        test_size: number of test scenes.
        image_size: (h, w) of the images, h = w, in pixels.
        batch_size: see `ClassificationData`.
        eval_batch_size: see `ClassificationData`.
        workers: see `ClassificationData`.
        seed: see `ClassificationData`; also of the scenes.

    Raises:
        InputError: if the images are not square.
    """

    def __init__(
        self,
        train_size: int = 6000,
        val_size: int = 500,
        test_size: int = 500,
        image_size: tuple[int, int] = (64, 64),
        batch_size: int = 64,
        eval_batch_size: int = 256,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        batches = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "workers": workers, "seed": seed}
        super().__init__((train_size, val_size, test_size), image_size, padding=4, **batches)

    @property
    def class_names(self) -> list[str]:
        return list(COLOURS)

    def scene(self, split: Split, index: int) -> Scene:
        """The scene with this index; its first thing is the large one, of class ``index % 6``."""
        for attempt in itertools.count():
            rng = np.random.default_rng([self.seed, 3 + STREAMS[split], index, attempt])
            scene = make_scene(rng, count=3, sizes=("large", "small", "small"))
            if scene.things[0].colour == self.class_names[index % len(COLOURS)]:
                return scene


def split_sizes(train: int, val: int, test: int) -> dict[Split, int]:
    """The numbers of scenes of each split, checked."""
    for name, value, least in (("train_size", train, 1), ("val_size", val, 1), ("test_size", test, 0)):
        require_number(name, value, least=least, most=10**7)
    return {"train": train, "val": val, "test": test}


def square(size: tuple[int, int]) -> tuple[int, int]:
    """A size of pictures, checked to be square."""
    if size[0] != size[1]:
        raise InputError(f"image_size is {size[0]}×{size[1]}; scenes of shapes are square")
    return tuple(size)
