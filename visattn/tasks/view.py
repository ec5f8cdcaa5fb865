"""Browse results in a single HTML file."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from visattn.errors import InputError
from visattn.files import named_path, protect, require_file, write_text
from visattn.images.reading import load_image
from visattn.overlay.viewer import SIDE, Scene, viewer
from visattn.results import Listed, files_of, list_results

log = logging.getLogger(__name__)


def name_folders(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """The models' names and folders that arguments give as NAME=FOLDER or FOLDER.

    Without a name it is the folder's, with as many folders above it as tell two apart.
    """
    pairs = [named_path(argument) for argument in arguments]
    parts = [folder.resolve().parts for _, folder in pairs]
    depth = next((d for d in range(1, max(map(len, parts))) if len({p[-d:] for p in parts}) == len(parts)), 1)
    return [(name or "/".join(p[-depth:]), folder) for (name, folder), p in zip(pairs, parts, strict=True)]


def common_pictures(lists: Sequence[list[Listed]]) -> list[tuple[Listed, ...]]:
    """The entries of several lists that are of one picture each: of the same path, else of a name that is there once.

    Returns:
        A tuple for each picture that all have, in the order of the first list.
    """
    tables = []
    for listed in lists:
        names = [item.image.name for item in listed]
        tables.append({item.image: item for item in listed})
        tables[-1] |= {Path(n): item for n, item in zip(names, listed, strict=True) if names.count(n) == 1}
    rows = (tuple(t.get(i.image) or t.get(Path(i.image.name)) for t in tables) for i in lists[0])
    return [row for row in rows if None not in row]


def find_picture(items: Sequence[Listed], images: Path | None) -> Path:
    """The file of a picture that these results are of.

    Raises:
        InputError: if it is neither where they say nor in `images`.
    """
    places = [item.image for item in items] + ([images / items[0].image.name] if images else [])
    for place in places:
        if place.is_file():
            return place
    advice = f"nor is one of its name in {images}" if images else "say where it is with --images FOLDER"
    raise InputError(f"the image {places[0]} is missing; {advice}")


def read_scenes(pictures: Sequence[tuple[Listed, ...]], images: Path | None) -> Iterator[Scene]:
    """Pictures and their readings, one after the other.

    Raises:
        InputError: if a picture is missing or is not the one that its maps were made for.
    """
    for items in tqdm(pictures, desc="Reading", unit="picture"):
        path = find_picture(items, images)
        pixels = np.asarray(load_image(path))
        readings = [item.read() for item in items]
        for item, reading in zip(items, readings, strict=True):
            (height, width), (h, w) = pixels.shape[:2], reading.geometry.original
            if (height, width) != (h, w):
                raise InputError(
                    f"{path} has {width}×{height} pixels, but the maps in {item.maps} belong to an image of {w}×{h}; "
                    "write the results again, or set --images to the folder of that image"
                )
        yield Scene(path.name, pixels, readings)


def view(
    results: Sequence[str], output: Path, images: Path | None = None, title: str | None = None, side: int = SIDE
) -> int:
    """Write the page.

    Args:
        results: one or two folders of results, as FOLDER or NAME=FOLDER.
        output: the HTML file to write.
        images: folder of the pictures, where they have moved.
        title: of the page; None takes the names.
        side: pixels of a picture's longer side in the page.

    Returns:
        How many pictures it has.

    Raises:
        InputError: if results or pictures are missing, or do not belong together.
    """
    folders = name_folders(results)
    lists = [list_results(folder) for _, folder in folders]
    for (_, folder), listed in zip(folders, lists, strict=True):
        protect(files_of(folder, listed))
        protect((images or item.image.parent) / item.image.name for item in listed)
    require_file(output)
    pictures = common_pictures(lists)
    if not pictures:
        raise InputError(f"{folders[0][1]} and {folders[1][1]} have no images in common")
    for (_, folder), listed in zip(folders, lists, strict=True):
        if more := len(listed) - len(pictures):
            log.warning("%s: %d of its %d images are not in the other folder, and left out", folder, more, len(listed))
    names = [name for name, _ in folders]
    title = title or " and ".join(names)
    write_text(output, viewer(title, names, read_scenes(pictures, images), side))
    return len(pictures)
