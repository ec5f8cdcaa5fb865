"""Writing classification results: sheets, maps, and a list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from visattn.files import safe_names, write_bytes, write_json, write_npz
from visattn.overlay import Paper, Style, caption_sheet, check_style, classification_sheet, encode_figure, wall_sheet
from visattn.overlay.layout import percent
from visattn.results.earlier import check_overwriting
from visattn.results.workers import Workers

if TYPE_CHECKING:
    from visattn.data.inputs import Input


class Wall(NamedTuple):
    """Maps for a table.

    Attributes:
        maps: (R, C, H, W).
        rows: R names.
        columns: C names.
    """

    maps: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]


ClassExport = Literal["sheet", "svg", "pdf", "gif", "npz"]


@dataclass(frozen=True)
class ClassWriter:
    """Writes a classifier's results to a folder; see `visattn overlay --help` for the exports.

    Attributes:
        folder: output folder; it must exist.
        class_names: names of the model's classes, in order; empty if it has none.
        exports: formats to write for each image.
        style: how maps are drawn.
        paper: size of the sheets.
        meaning: label of the colour scale.
        workers: processes that draw; the files are complete once this context is left.
    """

    folder: Path
    class_names: Sequence[str]
    exports: Sequence[ClassExport] = ("sheet", "npz")
    style: Style = Style("own", end="robust")
    paper: Paper = Paper()
    meaning: str = "attention"
    workers: Workers = field(default_factory=lambda: Workers(0))

    def __post_init__(self) -> None:
        """Report an invalid style before anything is computed."""
        check_style(self.style, self.paper)

    def check_overwriting(self, pictures: Sequence[Path]) -> None:
        """Check, before anything is computed, that no file of the user would be overwritten.

        Args:
            pictures: all images to write, in order.

        Raises:
            InputError: if an image, a declared input or a file not written by a run would be overwritten.
        """
        names = safe_names(path.stem for path in pictures)
        suffixes = ["png" if form == "sheet" else form for form in self.exports]
        check_overwriting(
            self.folder / "classes.json", [f"{name}.{suffix}" for name in names for suffix in suffixes], pictures
        )

    def write(
        self,
        item: "Input",
        found: Mapping[str, np.ndarray],
        titles: Mapping[str, str],
        truth: str | None = None,
        wall: Wall | None = None,
        asked: int | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Write an image's sheet and maps.

        Args:
            item: the image.
            found: its results by name: maps (H, W), `probabilities` (classes,) if the model has classes, and anything
                else to write with them.
            titles: titles of the maps shown in the sheet, by their names in `found`, in the order of the panels.
            truth: the true class, if known; the sheet then shows whether the prediction is right.
            wall: what the sheet shows in place of the maps of `titles`, if given.
            asked: index of the cell whose attention the maps are, which is framed; None for a class.
            notes: short texts below the maps of a model without classes, by their names.

        Returns:
            The image's entry in the list: image, class and probability (if the model has classes), overlay (file name
            of the sheet, None if `exports` has none), files (all files written), queries (if there are any: the bytes
            that they take before compression).

        Raises:
            OSError: if the folder cannot be written to.
        """
        top = self._likeliest(found)
        files = []
        if forms := [form for form in ("sheet", "svg", "pdf") if form in self.exports]:
            panels = [(title, found[name]) for name, title in titles.items()]
            below = [(notes or {}).get(name, "") for name in titles]
            sheet = (
                self._sheet(item, panels, below, top, truth, asked)
                if wall is None
                else self._wall(item, wall, top, asked)
            )
            files += [f"{item.name}.{'png' if form == 'sheet' else form}" for form in forms]

            def save(drawn: Sequence[bytes], names: Sequence[str] = tuple(files)) -> None:
                for name, content in zip(names, drawn, strict=True):
                    write_bytes(self.folder / name, content)

            self.workers.run(encode_sheet, sheet, forms, then=save)
        if "npz" in self.exports:
            files.append(f"{item.name}.npz")
            write_npz(
                self.folder / files[-1],
                **{name.replace("-", "_"): value for name, value in found.items()},
                classes=np.array(self.class_names),
                geometry=item.geometry.to_array(),
            )
        said = {"class": top[0][0], "probability": top[0][1]} if top else {}
        overlay = f"{item.name}.png" if "sheet" in self.exports else None
        carried = {"queries": int(found["queries"].nbytes)} if "queries" in found else {}
        return {"image": str(item.path), **said, "overlay": overlay, "files": files, **carried}

    def finish(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write `classes.json`, the list of all images and their files."""
        write_json(self.folder / "classes.json", entries)

    def _likeliest(self, found: Mapping[str, np.ndarray]) -> list[tuple[str, float]]:
        """The five most likely classes and their probabilities, in order; empty for a model without classes."""
        if not self.class_names:
            return []
        order = np.argsort(-found["probabilities"])[:5]
        return [(self.class_names[i], float(found["probabilities"][i])) for i in order]

    def _wall(
        self, item: "Input", wall: Wall, top: Sequence[tuple[str, float]], asked: int | None
    ) -> Callable[[], Figure]:
        said = f" · predicted: {top[0][0]}, {percent(top[0][1])}" if top else ""
        drawing = {"title": item.path.name + said, "asked": asked, "meaning": self.meaning}
        drawing |= {"style": self.style, "paper": self.paper}
        return partial(wall_sheet, item.original, wall.maps, item.geometry, wall.rows, wall.columns, **drawing)

    def _sheet(
        self,
        item: "Input",
        panels: Sequence[tuple[str, np.ndarray]],
        below: Sequence[str],
        top: Sequence[tuple[str, float]],
        truth: str | None,
        asked: int | None,
    ) -> Callable[[], Figure]:
        drawing: dict[str, Any] = {"title": item.path.name, "meaning": self.meaning, "asked": asked}
        drawing |= {"style": self.style, "paper": self.paper}
        if not top:
            titles, maps = zip(*panels, strict=True)
            return partial(caption_sheet, item.original, titles, maps, item.geometry, notes=below, **drawing)
        return partial(
            classification_sheet,
            item.original,
            panels,
            item.geometry,
            label=top[0][0],
            probability=top[0][1],
            top=top,
            truth=truth,
            **drawing,
        )


def encode_sheet(sheet: Callable[[], Figure], forms: Sequence[ClassExport]) -> list[bytes]:
    """The contents of the file of each form of a sheet that is yet to be drawn."""
    figure = sheet()
    return [encode_figure(figure, "png" if form == "sheet" else form) for form in forms]
