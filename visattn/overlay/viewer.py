"""The viewer: one HTML file to browse images, words and maps.

Maps travel as grids, and the page's script (`assets/*.js`) lays them over the pixels with the same geometry and the
same colours as `heatmap`: both come from here as numbers. Nothing is fetched; whatever came from a model or a file's
name travels as JSON and is shown as text.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from visattn.images import Geometry
from visattn.overlay.document import document, escaped, json_source, picture_source
from visattn.overlay.heatmap import cell_box, check_map, check_picture, palette

Kind = Literal["caption", "class", "scan"]

SIDE = 640  # longer side of an image in the page, in pixels
_QUALITY, _THUMB_QUALITY = 82, 70  # JPEG quality
_THUMB = 96  # shorter side of a thumbnail
_STYLES = ("viewer.css", "print.css")
_SCRIPTS = ("maps.js", "pane.js", "views.js", "links.js", "page.js")  # in this order, one script
_LEVELS = 255  # cells have 8 bits, from the map's smallest to its largest weight


class Answer(NamedTuple):
    """A caption or a class.

    Attributes:
        text: the words, or the class's name.
        score: log-probability of a caption, probability of a class; None if unknown.
    """

    text: str
    score: float | None = None


class Queries(NamedTuple):
    """Where every place of a grid attends, in L layers of a model, with 8 bits for each weight.

    Attributes:
        layers: their numbers, from 0.
        depth: how many layers the model has.
        grid: (h, w) of the places, which are counted row by row.
        cells: (L, h w, h w) uint8: each place's row of weights, in steps of 1/255 of the row's largest.
        high: (L, h w), the largest weight of each row.
    """

    layers: Sequence[int]
    depth: int
    grid: tuple[int, int]
    cells: np.ndarray
    high: np.ndarray

    def check(self) -> "Queries":
        """Itself.

        Raises:
            ValueError: if the arrays do not fit the layers and the grid.
        """
        count = self.grid[0] * self.grid[1]
        shape = len(self.layers), count, count
        if self.cells.dtype != np.uint8 or self.cells.shape != shape or self.high.shape != shape[:2]:
            raise ValueError(f"where places attend must be {shape} bytes, not {self.cells.shape} {self.cells.dtype}")
        if not np.isfinite(self.high).all():
            raise ValueError("the largest weights of places must be finite")
        return self


class Reading(NamedTuple):
    """The result of one model for one image: a caption of T words, a scan of T fixations, or a class without either.

    Attributes:
        kind: "caption", "class" or "scan".
        geometry: from the original image to the model's input.
        answer: the caption or class that the maps belong to.
        maps: by name, finite arrays of (T, layers, heads, h, w), or (1, layers, heads, h, w) for a class; 1 if a map
            has no layers or heads. The first is shown initially.
        words: the T words; of a scan the likeliest class after each fixation.
        others: further answers without maps.
        log_probs: (T,) of the words, or None.
        gates: (T,) β, or None if the decoder has no gate.
        entropies: (T,) of the weights, in nats, or None.
        places: T indices (row by row) of the cell sampled by hard attention (None if there is more than one), or None.
        frames: (T, 4) top, left, bottom and right side of what is framed instead, in pixels of the original, or None.
        further: further captions of the same image by the same model, with maps, in order.
        queries: where every place attends, which a click on the picture then shows; or None.
    """

    kind: Kind
    geometry: Geometry
    answer: Answer
    maps: dict[str, np.ndarray]
    words: Sequence[str] = ()
    others: Sequence[Answer] = ()
    log_probs: np.ndarray | None = None
    gates: np.ndarray | None = None
    entropies: np.ndarray | None = None
    places: Sequence[int | None] | None = None
    frames: np.ndarray | None = None
    further: Sequence["Reading"] = ()
    queries: Queries | None = None


class Scene(NamedTuple):
    """One image and the result of each model.

    Attributes:
        name: of the image.
        picture: (H, W, 3) uint8, the original pixels.
        readings: one for each model, in the order of their names.
    """

    name: str
    picture: np.ndarray
    readings: Sequence[Reading]


def viewer(title: str, models: Sequence[str], scenes: Iterable[Scene], side: int = SIDE) -> str:
    """Make the page.

    Args:
        title: of the page.
        models: a name for each model; two are shown side by side.
        scenes: the images, read lazily.
        side: maximum longer side of an image in the page, in pixels; larger images are resized.

    Returns:
        The HTML; write it with `visattn.files.write_text`.

    Raises:
        ValueError: if arrays do not match, a map is not finite, or a scene lacks a model's reading.
    """
    data = {
        "models": list(models),
        "palette": palette(),
        "scenes": [_scene(scene, len(models), side) for scene in scenes],
    }
    quantised = (
        f"Maps are stored with 8 bits per cell, from the map's smallest to its largest weight, and an error of at most "
        f"1/{2 * _LEVELS} of that range. Images are JPEG of quality {_QUALITY}, at most {side} pixels on a side."
    )
    if any(reading["queries"] for scene in data["scenes"] for reading in scene["readings"]):
        quantised += f" Of each place's attention the error is at most 1/{2 * _LEVELS} of its largest weight."
    body = Template(_asset("viewer.html")).substitute(title=escaped(title), quantised=quantised, data=json_source(data))
    return document(title, "".join(map(_asset, _STYLES)), body, "\n".join(map(_asset, _SCRIPTS)))


def _asset(name: str) -> str:
    return (files("visattn.overlay") / "assets" / name).read_text(encoding="utf-8")


def _scene(scene: Scene, models: int, side: int) -> dict[str, Any]:
    if len(scene.readings) != models:
        raise ValueError(f"'{scene.name}' has {len(scene.readings)} readings for {models} models")
    height, width = scene.picture.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    thumb = _THUMB / min(size)
    narrow = max(1, round(size[0] * thumb)), max(1, round(size[1] * thumb))
    crop = tuple(min(length, 2 * _THUMB) for length in narrow)  # of a panorama, only the middle
    top, left = ((length - kept) // 2 for length, kept in zip(narrow, crop, strict=True))
    picture = Image.fromarray(scene.picture)
    small = picture if size == (height, width) else picture.resize(size[::-1], Image.Resampling.LANCZOS)
    box = tuple(c / thumb for c in (left, top, left + crop[1], top + crop[0]))
    box = (box[0], box[1], min(box[2], size[1]), min(box[3], size[0]))
    return {
        "name": scene.name,
        "size": size,
        "picture": picture_source(_jpeg(small, _QUALITY)),
        "thumb": picture_source(_jpeg(small.resize(crop[::-1], Image.Resampling.BICUBIC, box=box), _THUMB_QUALITY)),
        "readings": [_reading(reading, scene.picture, size) for reading in scene.readings],
    }


def _reading(reading: Reading, picture: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    check_picture(picture, reading.geometry)
    shown = reading.geometry.resized(size)
    count = 1 if reading.kind == "class" else len(reading.words)
    for name, maps in reading.maps.items():
        if maps.ndim != 5 or len(maps) != count:
            raise ValueError(f"the maps '{name}' must be ({count}, layers, heads, h, w), not {maps.shape}")
    for name in ("log_probs", "gates", "entropies", "places", "frames"):
        if (given := getattr(reading, name)) is not None and len(given) != len(reading.words):
            raise ValueError(f"there are {len(reading.words)} words, but {len(given)} {name}")
    grid = next(iter(reading.maps.values())).shape[-2:] if reading.maps else (1, 1)
    boxes = [None if place is None else _box(shown, grid, place) for place in reading.places or ()]
    if reading.frames is not None:
        boxes = (reading.frames / np.tile(picture.shape[:2], 2)).clip(0, 1).tolist()
    return {
        "kind": "class" if reading.kind == "class" else "caption",
        "unit": "fixation" if reading.kind == "scan" else "word",
        "answer": list(reading.answer),
        "others": [list(answer) for answer in reading.others],
        "words": list(reading.words),
        "logProbs": _numbers(reading.log_probs),
        "gates": _numbers(reading.gates),
        "entropies": _numbers(reading.entropies),
        "boxes": boxes,
        "geometry": shown.to_array().tolist(),
        "maps": [{"name": name, **_quantised(maps)} for name, maps in reading.maps.items()],
        "further": [_reading(other, picture, size) for other in reading.further],
        "queries": None if reading.queries is None else _carried(reading.queries, shown),
    }


def _carried(queries: Queries, shown: Geometry) -> dict[str, Any]:
    """Where every place attends, in bytes as it is, and where on the image the places lie, in fractions of its sides.

    `crop` is (top, left, bottom, right) of the model's input; `rows` and `columns` are the edges of the places.
    """
    queries.check()
    ends = shown.to_original(np.array([(0, 0), shown.input])) / shown.original
    edges = zip(shown.edges(queries.grid), shown.offset, shown.scale, shown.original, strict=True)
    rows, columns = ((side + offset) / scale / length for side, offset, scale, length in edges)
    return {
        "layers": list(queries.layers),
        "depth": queries.depth,
        "grid": list(queries.grid),
        "crop": _numbers(ends.ravel()),
        "rows": _numbers(rows),
        "columns": _numbers(columns),
        "high": _numbers(queries.high.ravel()),
        "cells": base64.b64encode(np.ascontiguousarray(queries.cells)).decode(),
    }


def _box(shown: Geometry, grid: tuple[int, int], place: int) -> list[float]:
    """A cell as (top, left, bottom, right) as fractions of the image; empty if it is in the padding."""
    found = cell_box(shown, grid, place)
    return [] if found is None else [side / n for side, n in zip(found, (*shown.original,) * 2, strict=True)]


def _quantised(maps: np.ndarray) -> dict[str, Any]:
    """Quantise (T, layers, heads, h, w) to bytes; `low` and `high` are each map's weights at 0 and 255."""
    flat = maps.reshape(-1, *maps.shape[-2:]).astype(float)
    for weights in flat:
        check_map(weights)
    low, high = flat.min((1, 2)), flat.max((1, 2))
    span = np.where(high > low, high - low, 1)
    cells = np.round((flat - low[:, None, None]) / span[:, None, None] * _LEVELS).astype(np.uint8)
    return {
        "shape": list(maps.shape),
        "low": _numbers(low),
        "high": _numbers(high),
        "cells": base64.b64encode(cells.tobytes()).decode(),
    }


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="jpeg", quality=quality, optimize=True)
    return stream.getvalue()


def _numbers(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(f"{value:.7g}") for value in np.asarray(values, dtype=float)]
