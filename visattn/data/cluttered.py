"""Large scenes with clutter, whose class is a detail of one thing: small in the picture, and to be found first."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from visattn.data.loading import STREAMS, Split
from visattn.data.shapes import COLOURS, SHAPES, GeneratedClasses, Scene, Thing, background, make_scene, painted
from visattn.errors import require_choice, require_number

Question = Literal["mark", "shape", "colour"]

MARK, EDGE = 0.05, 0.014  # radius of a mark, and width of the white edge around it, as shares of the picture's side
_FRAGMENT = (0.015, 0.035)  # radius of a piece of clutter
_SUPERSAMPLING = 3


class MarkedScene(NamedTuple):
    """A scene in clutter, with a mark in the middle of every thing.

    Attributes:
        scene: the things; the first is the large one.
        marks: a mark for each thing, of another colour than its own.
        clutter: pieces in the background, any shape and colour.
    """

    scene: Scene
    marks: tuple[Thing, ...]
    clutter: tuple[Thing, ...]

    def swapped(self, one: str, other: str) -> "MarkedScene":
        """The same scene with two colours in each other's place, on things and marks."""
        colours = {one: other, other: one}
        things, marks = (
            tuple(thing._replace(colour=colours.get(thing.colour, thing.colour)) for thing in part)
            for part in (self.scene.things, self.marks)
        )
        return self._replace(scene=self.scene._replace(things=things), marks=marks)

    def picture(self, side: int) -> Image.Image:
        """The scene as an antialiased RGB picture of `side` × `side` pixels; things and marks lie on the clutter."""
        edges = [mark._replace(radius=MARK + EDGE, colour="white") for mark in self.marks]
        things = (*self.clutter, *self.scene.things, *edges, *self.marks)
        return painted(background(side, self.scene.ground), things, _SUPERSAMPLING)


def make_marked_scene(rng: np.random.Generator, clutter: int) -> MarkedScene:
    """Draw a scene of one large and two small things in `clutter` pieces."""
    scene = make_scene(rng, count=3, sizes=("large", "small", "small"))
    marks = tuple(
        Thing(_any(SHAPES, rng), _any([c for c in COLOURS if c != thing.colour], rng), "mark", thing.y, thing.x, MARK)
        for thing in scene.things
    )
    pieces = tuple(
        Thing(_any(SHAPES, rng), _any(list(COLOURS), rng), "clutter", *rng.random(2).tolist(), rng.uniform(*_FRAGMENT))
        for _ in range(clutter)
    )
    return MarkedScene(scene, marks, pieces)


def _any(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[rng.integers(len(names))]


class ShapesCluttered(GeneratedClasses):
    """Scenes of one large and two small things in clutter, each with a mark; the class is a detail of the large one.

    With the questions "mark" and "shape" the detail has a tenth of the picture's side, and the other things have marks
    of their own: the large thing must be found first, and then be seen sharply.

    Args:
        train_size: scenes for training; every class is equally frequent in each split, up to one.
        val_size: scenes for validation.
        test_size: scenes for test.
        image_size: (h, w) of the pictures, h = w, in pixels.
        clutter: pieces in the background.
        question: "mark", the colour of the mark on the large thing; "shape", that of the mark; or "colour", the large
            thing's own.
        batch_size: see `ClassificationData`.
        eval_batch_size: see `ClassificationData`.
        padding: see `ClassificationData`; scenes are shifted by up to so many pixels.
        workers: see `ClassificationData`.
        seed: see `ClassificationData`; also of the scenes.

    Raises:
        InputError: if the pictures are not square, or an option is out of its range.
    """

    def __init__(
        self,
        train_size: int = 8000,
        val_size: int = 500,
        test_size: int = 1000,
        image_size: tuple[int, int] = (128, 128),
        clutter: int = 30,
        question: Question = "colour",
        batch_size: int = 64,
        eval_batch_size: int = 250,
        padding: int = 8,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        batches = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "workers": workers, "seed": seed}
        super().__init__((train_size, val_size, test_size), image_size, padding=padding, **batches)
        require_number("clutter", clutter, least=0, most=1000)
        require_choice("question", question, get_args(Question))
        self.clutter, self.question = clutter, question

    @property
    def class_names(self) -> list[str]:
        return list(SHAPES if self.question == "shape" else COLOURS)

    def scene(self, split: Split, index: int) -> MarkedScene:
        """The scene of that number, whose class is ``index % len(class_names)``."""
        answer = self.class_names[index % len(self.class_names)]
        rng = np.random.default_rng([self.seed, 6 + STREAMS[split], index])
        marked = make_marked_scene(rng, self.clutter)
        large, mark = marked.scene.things[0], marked.marks[0]
        if self.question == "shape":
            return marked._replace(marks=(mark._replace(shape=answer), *marked.marks[1:]))
        return marked.swapped((large if self.question == "colour" else mark).colour, answer)
