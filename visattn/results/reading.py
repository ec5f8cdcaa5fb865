"""Reading result folders written by `visattn caption` and `visattn overlay`."""

import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visattn.errors import InputError
from visattn.files import read_arrays
from visattn.images import Geometry
from visattn.metrics import entropy
from visattn.overlay import Answer, Queries, Reading
from visattn.overlay.viewer import Kind
from visattn.results.earlier import names_of

LISTS: dict[str, Kind] = {"captions.json": "caption", "classes.json": "class"}
CLASSES = 5  # most likely classes to keep
SHARP = 64  # most cells along a side of a map of how sharply a scan sees

Arrays = dict[str, np.ndarray]

# Errors that damaged archives raise; AttributeError and TypeError if the file is an array, not an archive.
_DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, KeyError, AttributeError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


class Listed(NamedTuple):
    """An entry of a result list: one image, whose maps have not been read yet.

    Attributes:
        kind: "caption" or "class".
        image: its path when the results were written.
        maps: the file with its maps.
        entry: the entry in the list.
        further: the same for its further captions that have maps.
    """

    kind: Kind
    image: Path
    maps: Path
    entry: dict[str, Any]
    further: Sequence["Listed"] = ()

    def read(self) -> Reading:
        """Read the maps and what belongs to them.

        Raises:
            InputError: if a file of maps is missing, damaged, or does not match the entry.
        """
        reading = self._read()
        if not self.further:
            return reading
        further = [item.read() for item in self.further]
        for item, other in zip(self.further, further, strict=True):
            if other.geometry != reading.geometry:
                raise InputError(
                    f"{item.maps} and {self.maps} are not maps of the same image, but {self.image.name} lists both; "
                    "write the results again"
                )
        return reading._replace(further=further)

    def _read(self) -> Reading:
        try:
            arrays = read_arrays(self.maps)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.maps}, with the maps of {self.image.name}, is missing; write the results again"
            ) from error
        except _DAMAGED as error:
            raise InputError(f"{self.maps} cannot be read ({_reason(error)}); write the results again") from error
        try:
            geometry = Geometry.from_array(arrays.pop("geometry"))
            return (_caption if self.kind == "caption" else _class)(geometry, self.entry, arrays)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise InputError(
                f"{self.maps} does not contain the maps listed for it ({_reason(error)}); "
                "it may have been written by another program or version; write the results again"
            ) from error


def list_results(folder: Path) -> list[Listed]:
    """The images of a result folder, in the order of its list.

    Raises:
        InputError: if the folder has no results, or its list is damaged or empty.
    """
    found = [folder / name for name in LISTS if (folder / name).is_file()]
    if not found:
        raise InputError(
            f"{folder} is not a folder of results: it has neither {' nor '.join(LISTS)}; "
            "create one with visattn caption or visattn overlay"
        )
    path = max(found, key=lambda p: p.stat().st_mtime)  # if both programs wrote here, the later list matches the maps
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        listed = [_listed(LISTS[path.name], folder, entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a list of results ({_reason(error)}); write the results again") from error
    if not listed:
        raise InputError(f"{path} lists no images")
    return listed


def files_of(folder: Path, listed: Sequence[Listed]) -> Iterator[Path]:
    """All files of a result folder: its lists, the files in their entries, and the images at their recorded paths."""
    yield from (folder / name for name in LISTS)
    for item in listed:
        yield from (item.image, item.maps)
        yield from (folder / name for name in names_of(item.entry))


def _listed(kind: Kind, folder: Path, entry: dict[str, Any]) -> Listed:
    image = Path(entry["image"])
    maps = _maps(entry.get("files") or [str(Path(entry["overlay"]).with_suffix(".npz"))])
    if maps is None:
        raise InputError(
            f"{folder} has no maps of {image}, which was written without them; repeat it with --export npz"
        )
    others = [(other, _maps(other.get("files") or [])) for other in entry.get("captions", [])[1:]]
    further = [Listed(kind, image, folder / found, other) for other, found in others if found]
    return Listed(kind, image, folder / maps, entry, further)


def _maps(names: Sequence[str]) -> Path | None:
    """The file of maps among an entry's files, as a path relative to the folder and never outside it."""
    path = next((Path(name) for name in names if Path(name).suffix == ".npz"), None)
    return Path(path.name) if path and (path.anchor or ".." in path.parts) else path


def _caption(geometry: Geometry, entry: dict[str, Any], arrays: Arrays) -> Reading:
    words = _strings("words", arrays.pop("words"))
    log_probs, gates = (_row(name, arrays.pop(name, None), len(words)) for name in ("log_probs", "beta"))
    focus, others = arrays.pop("focus", None), entry.get("captions", [])[1:]
    alpha = _stack("alpha", arrays.pop("alpha"), len(words))
    more = {n: _stack(n, a, len(words)) for n, a in arrays.items() if 3 <= a.ndim <= 5 and len(a) == len(words)}
    places: list[int | None] | None = None
    if focus is not None and len(words):
        cells = _stack("focus", focus, len(words)).reshape(len(words), -1)
        places = [int(row.argmax()) if row.max() == row.sum() else None for row in cells]
    return Reading(
        "caption",
        geometry,
        Answer(str(entry["caption"]), _score(entry.get("log_prob"))),
        {"alpha": alpha, **more},
        words,
        [Answer(str(c["caption"]), _score(c.get("log_prob"))) for c in others if not _maps(c.get("files") or [])],
        log_probs,
        None if gates is None or (gates == 1).all() else gates,  # a decoder without a gate
        entropy(alpha.mean((1, 2)).reshape(len(words), math.prod(alpha.shape[-2:]))),
        places,
    )


def _scan(geometry: Geometry, entry: dict[str, Any], arrays: Arrays) -> Reading:
    """Maps of how sharply each fixation sees: numbers read for a pixel, of the smallest square that covers it."""
    said = _strings("predicted", arrays["predicted"])
    sure = _row("confidence", arrays["confidence"], len(said))
    middles, squares, size = arrays["locations"], arrays["squares"], arrays["glimpses"].shape[2]
    if sure is None or middles.shape != (len(said), 2) or squares.ndim != 1 or not len(said) * len(squares):
        raise ValueError(f"its scan has {len(said)} classes, but locations {middles.shape} and squares {squares.shape}")
    for name in ("locations", "squares"):
        _check_finite(name, arrays[name])
    centres = geometry.to_input(middles)
    cells = [min(side, SHARP) for side in geometry.input]
    down, across = ((np.arange(n) + 0.5) * side / n for n, side in zip(cells, geometry.input, strict=True))
    sharp = np.zeros((len(said), *cells))
    for side in sorted(squares.tolist(), reverse=True):
        rows, columns = (
            np.abs(at - centre[:, None]) <= side / 2 for at, centre in zip((down, across), centres.T, strict=True)
        )
        sharp[rows[:, :, None] & columns[:, None, :]] = min(1.0, (size / side) ** 2)
    reach = squares.min() / 2
    frames = np.hstack([geometry.to_original(centres + by) for by in (-reach, reach)])
    maps = {"glimpse": sharp, "so_far": np.maximum.accumulate(sharp)}
    return Reading(
        "scan",
        geometry,
        Answer(str(entry.get("class", said[-1]))),
        {name: part[:, None, None] for name, part in maps.items()},
        said,
        log_probs=np.log(np.maximum(sure, 1e-12)),
        frames=frames,
    )


def _class(geometry: Geometry, entry: dict[str, Any], arrays: Arrays) -> Reading:
    if "locations" in arrays:
        return _scan(geometry, entry, arrays)
    classes = _strings("classes", arrays.pop("classes", np.zeros(0)))
    probabilities = _row("probabilities", arrays.pop("probabilities", None), len(classes))
    likely = [] if probabilities is None else np.argsort(-probabilities, kind="stable")[:CLASSES]
    carried = {name: arrays.pop(name) for name in ("queries", "queries_high", "queries_layers") if name in arrays}
    texts = _strings("texts", arrays.pop("texts", np.zeros(0)))
    maps = {_named(name, texts): _stack(name, array[None], 1) for name, array in arrays.items() if array.ndim in (2, 4)}
    if not maps:
        raise ValueError("it has no maps")
    said = texts[0] if len(texts) == 1 else ""  # a model may have no classes
    answer = Answer(str(entry.get("class", said)), _score(entry.get("probability")))
    others = [Answer(classes[i], float(probabilities[i])) for i in likely if classes[i] != answer.text]
    queries = _queries(carried, maps["layers"]) if carried else None
    return Reading("class", geometry, answer, maps, others=others, queries=queries)


def _named(name: str, texts: Sequence[str]) -> str:
    """A map's name; of one of several texts with that text in place of its number."""
    method, _, number = name.rpartition("_")
    several = len(texts) > 1 and number.isdecimal() and int(number) < len(texts)
    return f"{texts[int(number)]}: {method}" if several else name


def _queries(arrays: Arrays, maps: np.ndarray) -> Queries:
    """Where every place attends; maps are those of all layers, (1, depth, heads, H, W)."""
    cells, high, layers = (arrays[name] for name in ("queries", "queries_high", "queries_layers"))
    depth, grid = maps.shape[1], maps.shape[-2:]
    if layers.dtype.kind not in "iu" or not ((layers >= 0) & (layers < depth)).all():
        raise ValueError(f"'queries_layers' must be layers of {depth}, not {layers.tolist()}")
    return Queries(layers.tolist(), depth, grid, cells, high).check()


def _stack(name: str, array: np.ndarray, count: int) -> np.ndarray:
    """(T, H, W), (T, heads, H, W) or (T, layers, heads, H, W) as (T, layers, heads, H, W), checked."""
    if not 3 <= array.ndim <= 5 or len(array) != count or 0 in array.shape[1:]:
        raise ValueError(f"'{name}' is {array.shape}, but {count} maps are expected")
    _check_finite(name, array)
    return array.reshape(count, *((1,) * (5 - array.ndim)), *array.shape[1:])


def _row(name: str, array: np.ndarray | None, count: int) -> np.ndarray | None:
    if array is None:
        return None
    if array.shape != (count,):
        raise ValueError(f"'{name}' is {array.shape}, not ({count},)")
    _check_finite(name, array)
    return array


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiub" or not np.isfinite(array.astype(float)).all():
        raise ValueError(f"'{name}' must contain finite numbers")


def _strings(name: str, array: np.ndarray) -> list[str]:
    """(N,) as strings; an empty list is an array of numbers in NumPy."""
    if array.ndim != 1 or (array.size and array.dtype.kind != "U"):
        raise ValueError(f"'{name}' is {array.shape} {array.dtype}, but must be a list of strings")
    return array.tolist()


def _score(value: Any) -> float | None:
    return None if value is None or not np.isfinite(float(value)) else float(value)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"'{error.args[0]}' is missing"
    return " ".join(str(error).split()) or repr(error)
