"""Models as the app uses them: a photograph to answers, and an answer to steps, each with a map.

An answer of a captioner is a caption, with a step for each word; one of a classifier is a class, and one of a model
that compares images with texts is a text, with a step for each method. Models run one at a time, since methods observe
them while they run.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from visattn.data.inputs import Input, read_fitted
from visattn.decoding import BeamSearch, Caption, Captioning
from visattn.errors import InputError
from visattn.explain import METHODS, OF_CLASS, Subject
from visattn.explain.methods import methods_of
from visattn.images import Geometry
from visattn.overlay import Style, heatmap, shared_limits
from visattn.overlay.heatmap import as_shown, robust_limits
from visattn.overlay.layout import percent
from visattn.overlay.sheet import unseen_items
from visattn.precision import autocast, of_option
from visattn.results import CaptionWriter, ClassWriter
from visattn.results.reading import CLASSES
from visattn.tasks.overlay import meaning_of, of_each_text, see
from visattn.tasks.view import view

SIDE = 900  # a photograph is shown with about SIDE² pixels
WORDS = 40  # of a caption that a user types

_METHODS = ("relevance", "rollout", "raw")
_NAMES = {"relevance": "relevance", "lrp": "relevance of the pixels", "rollout": "rollout", "raw": "last layer"}


class Answer(NamedTuple):
    """What a model says about a photograph, or reads of what a user says.

    Attributes:
        text: the caption, or the name of the class; empty if the model has no classes.
        score: in words.
        steps: names of the maps: the words, or the methods.
        maps: (h, w) for each step.
        remarks: a line about each step, or "".
        limits: (low, high) weights of all maps' colours; None gives each map its own.
        meanings: of each map's colours, such as "attention".
        note: what the user should know about it.
        found: what the writers of results take.
    """

    text: str
    score: str
    steps: Sequence[str]
    maps: Sequence[np.ndarray]
    remarks: Sequence[str]
    limits: tuple[float, float] | None
    meanings: Sequence[str]
    note: str
    found: Any


class Seen(NamedTuple):
    """A photograph that a model has seen.

    Attributes:
        item: the file and the model's input.
        picture: (H, W, 3) uint8, its pixels as shown.
        geometry: from there to the input.
        choices: a line for each answer, the best first; empty if there are none to choose from.
        answers: what the reader's `choose` takes, for each choice.
    """

    item: Input
    picture: np.ndarray
    geometry: Geometry
    choices: Sequence[str]
    answers: Sequence[Any]


class Reader(Protocol):
    """A model in the app.

    Attributes:
        name: of the model.
        purpose: what the page is for, in a sentence.
        choices: heading of the answers.
        steps: heading of the steps.
        asks: what a user may type, an example, and what a button for it says; None if nothing.
        files: what `write` writes.
    """

    name: str
    purpose: str
    choices: str
    steps: str
    asks: tuple[str, str, str] | None
    files: str

    def look(self, path: Path) -> Seen:
        """The photograph in a file; raises InputError if it cannot be read."""

    def choose(self, seen: Seen, number: int) -> Answer:
        """One of its answers."""

    def read(self, seen: Seen, text: str) -> Answer:
        """An answer to what a user typed; raises InputError if the model cannot use it."""

    def write(self, seen: Seen, answer: Answer, folder: Path) -> list[Path]:
        """Write the files to download to an empty folder: sheet, animation (of captions), viewer page."""


def draw(seen: Seen, answer: Answer, step: int) -> np.ndarray:
    """(H, W, 3) uint8: the photograph as shown, under the map of a step."""
    return heatmap(seen.picture, answer.maps[step], seen.geometry, limits=answer.limits)


def scale(seen: Seen, answer: Answer, step: int) -> tuple[str, str, str]:
    """The colour scale of `draw`: the meaning of its colours, its high end, and a note or ""."""
    high = (answer.limits or robust_limits([answer.maps[step]]))[1]
    beyond = "≥ " if answer.maps[step].max() > high else ""
    note = "hatched: not seen by the model" if unseen_items(seen.geometry) else ""
    return answer.meanings[step], f"{beyond}{high:.3g}", note


class CaptionReader:
    """A captioner, with the captions of a beam search as its answers.

    Args:
        model: the captioner; its search is replaced by one of the same ranking with several answers.
        name: of the model.
        answers: how many captions of a photograph.
        precision: as `of_option` takes it.
    """

    steps = "Words"
    asks = ("Your own caption, to see how the model reads it", "a dog runs through the grass", "Read")
    files = "sheet, GIF and viewer page"

    def __init__(self, model: Captioning, name: str, answers: int = 5, precision: str = "auto") -> None:
        own = model.search
        beam = own if isinstance(own, BeamSearch) else BeamSearch()
        penalty = beam.length_penalty
        model.search = BeamSearch(max(beam.width, answers), penalty, answers, beam.caution)
        self.model, self.name = model, name
        self.precision = of_option(precision, model.device)
        self.choices = "Captions of the beam search and their log-probabilities"
        if penalty or beam.caution:  # so that a caption can stand above a likelier one
            self.choices += ", ranked by log-probability"
            self.choices += " per word" if penalty == 1 else f" per words^{penalty:g}" if penalty else ""
            self.choices += f" + {beam.caution:g} · that of the least probable object" if beam.caution else ""
        self.purpose = "captions a photograph, and shows where it looked at each word."

    def look(self, path: Path) -> Seen:
        """See `Reader`."""
        item, picture, geometry = _opened(path, self.model.input.fit_image)
        with autocast(self.precision, self.model.device):
            (found,) = self.model.caption(item.tensor.unsqueeze(0))
        captions = list({tuple(caption.words): caption for caption in found}.values())  # a short list is filled up
        return Seen(item, picture, geometry, [_listed(caption) for caption in captions], captions)

    def choose(self, seen: Seen, number: int) -> Answer:
        """See `Reader`."""
        return self._answer(seen.answers[number])

    def read(self, seen: Seen, text: str) -> Answer:
        """See `Reader`."""
        vocabulary = self.model.vocabulary
        words = vocabulary.tokens.split(text)
        if not words:
            raise InputError("type a caption of at least one word")
        if len(words) > WORDS:
            raise InputError(f"this caption has {len(words)} words; type at most {WORDS}")
        with autocast(self.precision, self.model.device):
            (caption,) = self.model.read(seen.item.tensor.unsqueeze(0), [words])
        unknown = [f"“{word}”" for word in dict.fromkeys(words) if word not in vocabulary.ids]
        note = f"It does not know {' and '.join(unknown)}, and reads an unknown word there." if unknown else ""
        return self._answer(caption, note)

    def write(self, seen: Seen, answer: Answer, folder: Path) -> list[Path]:
        """See `Reader`."""
        others = [caption for caption in seen.answers if caption.words != answer.found.words]
        CaptionWriter(folder, ("sheet", "gif")).write(seen.item, [answer.found])
        maps = CaptionWriter(_inside(folder, "maps"), ("npz",))
        maps.finish([maps.write(seen.item, [answer.found, *others])])
        page = folder / f"{seen.item.name}.html"
        view([f"{self.name}={maps.folder}"], page, title=seen.item.path.name)
        return [folder / f"{seen.item.name}.png", folder / f"{seen.item.name}.gif", page]

    def _answer(self, caption: Caption, note: str = "") -> Answer:
        gated = not (caption.gates == 1).all()
        remarks = [
            f"probability {math.exp(log_prob):.1%}" + (f", gate on the image β {gate:.2f}" if gated else "")
            for log_prob, gate in zip(caption.log_probs, caption.gates, strict=True)
        ]
        score, limits = f"log-probability {_signed(caption.log_prob)}", shared_limits(caption.weights)
        meanings = ["attention α"] * len(remarks)
        return Answer(caption.text, score, caption.labels, caption.weights, remarks, limits, meanings, note, caption)


class ClassReader:
    """A Vision Transformer, with its likeliest classes as answers.

    Args:
        subject: the classifier.
        name: of the model.
        precision: as `of_option` takes it.
    """

    choices, steps = "Likeliest classes, with their probabilities", "Maps"
    files = "sheet and viewer page"

    def __init__(self, subject: Subject, name: str, precision: str = "auto") -> None:
        self.subject, self.name = subject, name
        self.precision = of_option(precision, subject.device)
        names = [method for method in _METHODS if method in methods_of(subject.vit)]
        names = [method for method in names if subject.class_names or method not in OF_CLASS]
        self.methods = {method: METHODS[method]() for method in names}
        self.asks = ("Another class to explain", subject.class_names[0], "Explain") if "relevance" in names else None
        does = "classifies a photograph, and shows" if subject.class_names else "shows"
        self.purpose = f"{does} where its attention lies."

    def look(self, path: Path) -> Seen:
        """See `Reader`."""
        item, picture, geometry = _opened(path, self.subject.see)
        if not self.subject.class_names:
            return Seen(item, picture, geometry, [], [None])
        with autocast(self.precision, self.subject.device):
            chances = self.subject.probabilities(item.tensor.unsqueeze(0).to(self.subject.device))[0].cpu().numpy()
        likeliest = np.argsort(-chances, kind="stable")[:CLASSES].tolist()
        lines = [
            f"{self.subject.class_names[number]}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}{percent(chances[number])}"
            for number in likeliest
        ]
        return Seen(item, picture, geometry, lines, likeliest)

    def choose(self, seen: Seen, number: int) -> Answer:
        """See `Reader`."""
        return self._explain(seen, seen.answers[number])

    def read(self, seen: Seen, text: str) -> Answer:
        """See `Reader`."""
        return self._explain(seen, self.subject.target(text.strip()))

    def write(self, seen: Seen, answer: Answer, folder: Path) -> list[Path]:
        """See `Reader`."""
        methods = [method for method in _NAMES if method in answer.found]
        titles = {m: f"{_NAMES[m]}, {answer.text}" if m in OF_CLASS else _NAMES[m] for m in methods}
        notes = {m: answer.score for m in methods if m in OF_CLASS}
        style = Style("own", end="robust")
        names = self.subject.class_names
        writer = ClassWriter(folder, names, ("sheet",), style, meaning=meaning_of(methods))
        writer.write(seen.item, answer.found, titles, notes=notes)
        maps = ClassWriter(_inside(folder, "maps"), names, ("npz",), style)
        maps.finish([maps.write(seen.item, answer.found, titles)])
        page = folder / f"{seen.item.name}.html"
        view([f"{self.name}={maps.folder}"], page, title=seen.item.path.name)
        return [folder / f"{seen.item.name}.png", page]

    def _explain(self, seen: Seen, number: int | None) -> Answer:
        with autocast(self.precision, self.subject.device):
            (found,) = see(self.subject, [seen.item], self.methods, number)
        if number is None:
            return _explained(found, self.methods, "", "", [""] * len(self.methods))
        text, score = self.subject.class_names[number], f"probability {found['probabilities'][number]:.1%}"
        remarks = [f"for {text}" if method in OF_CLASS else "the same for every class" for method in self.methods]
        return _explained(found, self.methods, text, score, remarks)


class TextReader(ClassReader):
    """A model that compares images with texts, such as CLIP; what a user types takes the place of a class.

    Args:
        subject: the model, without texts.
        name: of the model.
        precision: as `of_option` takes it.
    """

    def __init__(self, subject: Subject, name: str, precision: str = "auto") -> None:
        super().__init__(subject, name, precision)
        of_text = "relevance" if "relevance" in methods_of(subject.vit) else "lrp"
        self.of_text = {of_text: METHODS[of_text](), **self.methods}
        self.asks = ("A text to compare the photograph with", "a photo of a cat", "Compare")
        self.purpose = "compares a photograph with a text, and shows what in it speaks for the text."

    def read(self, seen: Seen, text: str) -> Answer:
        """See `Reader`."""
        subject = self.subject.comparing([text])
        (text,) = subject.class_names
        with autocast(self.precision, subject.device):
            (found,) = see(subject, [seen.item], of_each_text(self.of_text, [text]), None)
        found["texts"] = np.array([text])
        remarks = [f"for “{text}”" if method in OF_CLASS else "the same for every text" for method in self.of_text]
        score = f"cosine {found['cosines'][0]:.3f}".replace("-", "−")
        return _explained(found, self.of_text, text, score, remarks)


def _explained(found: Any, methods: Collection[str], text: str, score: str, remarks: Sequence[str]) -> Answer:
    steps, maps = [_NAMES[method] for method in methods], [found[method] for method in methods]
    return Answer(text, score, steps, maps, remarks, None, [meaning_of([name]) for name in methods], "", found)


def _opened(path: Path, fit: Any) -> tuple[Input, np.ndarray, Geometry]:
    """A file as a model's input, and its pixels as shown; errors do not name the file's place on this machine."""
    try:
        item = next(iter(read_fitted([path], fit)))
    except InputError as error:
        raise InputError(str(error).replace(str(path), "this photograph")) from error
    return item, *as_shown(item.original, item.geometry, SIDE)


def _listed(caption: Caption) -> str:
    return f"{caption.text}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}{_signed(caption.log_prob)}"


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _inside(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name
