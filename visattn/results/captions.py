"""Writing caption results: sheets, animations, maps, and a list."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from visattn.errors import InputError
from visattn.files import remove_file, require_own, safe_names, write_bytes, write_folder, write_json, write_npz
from visattn.images import Geometry
from visattn.overlay import (
    Paper,
    Style,
    caption_gif,
    caption_sheet,
    check_style,
    encode_figure,
    encode_png,
    word_pictures,
)
from visattn.results.earlier import check_overwriting, written_before
from visattn.results.workers import Workers

if TYPE_CHECKING:  # reading results needs no decoder and no timm
    from visattn.data.inputs import Input
    from visattn.decoding import Caption

CaptionExport = Literal["sheet", "svg", "pdf", "words", "gif", "npz"]

# Otherwise the format's name: ".svg".
_SUFFIXES: dict[CaptionExport, str] = {"sheet": ".png", "words": "_words"}
_DRAWN: tuple[CaptionExport, ...] = ("sheet", "svg", "pdf", "words", "gif")
_WORDS = r"\d{2,}(_[^\W_]+)?\.png"  # the files in a folder of words


@dataclass(frozen=True)
class CaptionWriter:
    """Writes the captions of images to a folder; see `visattn caption --help` for the exports.

    Attributes:
        folder: output folder; it must exist.
        exports: what to write of each caption.
        style: how maps are drawn.
        paper: how large sheets are.
        meaning: what the colours stand for.
        workers: processes that draw; the files are complete once this context is left.
    """

    folder: Path
    exports: Sequence[CaptionExport] = ("sheet", "npz")
    style: Style = Style()
    paper: Paper = Paper()
    meaning: str = "attention weight α"
    workers: Workers = field(default_factory=lambda: Workers(0))

    def __post_init__(self) -> None:
        """Report an invalid style before anything is computed."""
        check_style(self.style, self.paper)

    @property
    def _listing(self) -> Path:
        return self.folder / "captions.json"

    @cached_property
    def _before(self) -> set[str]:
        return written_before(self._listing)

    def check_overwriting(self, pictures: Sequence[Path], best: int = 1) -> None:
        """Check, before anything is computed, that no file of the user would be overwritten.

        Args:
            pictures: all images to write, in order.
            best: number of captions per image.

        Raises:
            InputError: if an image, a declared input or a file not written by a run would be overwritten.
        """
        names = safe_names(path.stem for path in pictures)
        for name in names:
            if (self.folder / f"{name}_captions").is_symlink():
                raise InputError(f"{self.folder / name}_captions is a link; move it away, or choose another --output")
        names += [f"{name}_captions/{rank}" for name in names for rank in range(2, best + 1)]
        outputs = [f"{name}{_suffix(form)}" for name in names for form in self.exports]
        check_overwriting(self._listing, outputs, pictures)
        for name in outputs:
            if name.endswith("_words"):
                require_own(self.folder / name, _WORDS)
        _ = self._before

    def write(
        self, item: "Input", captions: Sequence["Caption"], relevance: Sequence[np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Write an image's captions: the first under the image's name, the others in a separate folder.

        Args:
            item: the image; its geometry includes the encoder's cell shift.
            captions: at least one; the first is the one to show.
            relevance: (T, H, W) for each caption; if given it is shown, and stored in addition to α.

        Returns:
            The image's entry in the list: image, caption, words, log_prob (of the whole caption), word_log_probs,
            overlay (file name of the sheet, None if `exports` has none), files (all files of the first caption), and
            with several captions `captions`: caption, log_prob and files of each.

        Raises:
            OSError: if the folder cannot be written to.
        """
        first, further = captions[0], f"{item.name}_captions"
        self._clear(further)
        if len(captions) > 1:
            (self.folder / further).mkdir(exist_ok=True)
        names = [item.name, *(f"{further}/{rank}" for rank in range(2, len(captions) + 1))]
        titles = [item.path.name, *(f"{item.path.name}, caption {rank}" for rank in range(2, len(captions) + 1))]
        files = [
            self._write(item, caption, maps, name, title)
            for caption, maps, name, title in zip(
                captions, relevance or [None] * len(captions), names, titles, strict=True
            )
        ]
        entry = {
            "image": str(item.path),
            "caption": first.text,
            "words": first.labels,
            "log_prob": first.log_prob,
            "word_log_probs": first.log_probs.tolist(),
            "overlay": f"{item.name}.png" if "sheet" in self.exports else None,
            "files": files[0],
        }
        if len(captions) > 1:
            entry["captions"] = [
                {"caption": caption.text, "log_prob": caption.log_prob, "files": written}
                for caption, written in zip(captions, files, strict=True)
            ]
        return entry

    def finish(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write `captions.json`, the list of all images and their files."""
        write_json(self._listing, entries)

    def _clear(self, further: str) -> None:
        """Remove the files of further captions listed by an earlier run, and nothing else."""
        folder = self.folder / further
        for name in {name for name in self._before if Path(name).parent == Path(further)}:
            path = self.folder / name
            if path.is_dir():
                require_own(path, _WORDS)
                shutil.rmtree(path)
            else:
                remove_file(path)
        with suppress(OSError):  # not empty, or missing
            folder.rmdir()

    def _write(
        self, item: "Input", caption: "Caption", relevance: np.ndarray | None, name: str, title: str
    ) -> list[str]:
        """Write one caption's files under `name`, a path in the folder; returns the names of the files and folders."""
        maps = caption.weights if relevance is None else relevance
        probabilities, places = np.exp(caption.log_probs).tolist(), caption.places
        drawing = Drawing(
            item.original, caption.labels, maps, item.geometry, places, probabilities, title, self.meaning
        )
        if forms := [form for form in _DRAWN if form in self.exports]:

            def save(drawn: list["Encoded"]) -> None:
                for form, encoded in zip(forms, drawn, strict=True):
                    path = self.folder / f"{name}{_suffix(form)}"
                    if isinstance(encoded, bytes):
                        write_bytes(path, encoded)
                    else:
                        write_folder(path, encoded, own=_WORDS)

            self.workers.run(encode, drawing, forms, self.style, self.paper, then=save)
        if "npz" in self.exports:
            write_npz(
                self.folder / f"{name}.npz",
                words=np.array(caption.labels),
                alpha=caption.weights,
                focus=caption.focus,
                beta=caption.gates,
                log_probs=caption.log_probs,
                geometry=item.geometry.to_array(),
                **({} if relevance is None else {"relevance": relevance}),
            )
        return [f"{name}{_suffix(form)}" for form in (*_DRAWN, "npz") if form in self.exports]


class Drawing(NamedTuple):
    """What is drawn of a caption, in arrays: a process that draws does not load PyTorch."""

    original: np.ndarray
    words: list[str]
    maps: np.ndarray
    geometry: Geometry
    places: list[int | None]
    probabilities: list[float]
    title: str
    meaning: str


Encoded = bytes | list[tuple[str, bytes]]


def encode(drawing: Drawing, forms: Sequence[CaptionExport], style: Style, paper: Paper) -> list[Encoded]:
    """The contents of the file of each form; for "words", of the files in a folder, with their names."""
    seen, drawn, out = drawing[:4], drawing.places, []
    if {"sheet", "svg", "pdf"} & set(forms):
        about = {"title": drawing.title, "meaning": drawing.meaning, "style": style, "paper": paper}
        figure = caption_sheet(*seen, probabilities=drawing.probabilities, drawn=drawn, **about)
    for form in forms:
        if form == "words":
            pictures = word_pictures(drawing.original, drawing.maps, drawing.geometry, drawn=drawn, style=style)
            names = [f"{t:02d}{plain(word)}.png" for t, word in enumerate(drawing.words, start=1)]
            out.append(list(zip(names, map(encode_png, pictures), strict=True)))
        elif form == "gif":
            out.append(caption_gif(*seen, drawn=drawn, meaning=drawing.meaning, style=style))
        else:
            out.append(encode_figure(figure, "png" if form == "sheet" else form))
    return out


def _suffix(form: CaptionExport) -> str:
    return _SUFFIXES.get(form, f".{form}")


def plain(word: str) -> str:
    """A word as part of a file name: "_" and its first letters and digits, or ""."""
    letters = "".join(character for character in word if character.isalnum())[:24]
    return f"_{letters}" if letters else ""
