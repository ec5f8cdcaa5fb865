"""Look at results: one HTML file in which to walk through pictures, words and maps, with nothing else beside it.

    visattn view --output view.html runs/captions
    visattn view --output view.html "soft attention=runs/soft" "hard attention=runs/hard"

RESULTS is a folder that `visattn caption` or `visattn overlay` wrote; captions/ and classes/ in the folder of
`visattn demo` are such folders too. With two, the pictures that both have stand side by side. The pictures are those
that the results name; where they have moved, `--images` says where to find them by their name.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError
from visattn.files import protect, require_file, write_text
from visattn.images.reading import load_image
from visattn.overlay import Scene, viewer
from visattn.overlay.viewer import SIDE
from visattn.results import Listed, files_of, list_results


def name_folders(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """The models' names and folders that arguments give as NAME=FOLDER or FOLDER.

    Without a name it is the folder's, with as many folders above it as tell two apart.
    """
    pairs = [("", a) if "=" not in a or Path(a).exists() else a.split("=", 1) for a in arguments]
    folders = [Path(place) for _, place in pairs]
    parts = [folder.resolve().parts for folder in folders]
    depth = next((d for d in range(1, max(map(len, parts))) if len({p[-d:] for p in parts}) == len(parts)), 1)
    return [(pair[0] or "/".join(p[-depth:]), f) for pair, p, f in zip(pairs, parts, folders, strict=True)]


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
        InputError: where it is neither where they say nor in `images`.
    """
    places = [item.image for item in items] + ([images / items[0].image.name] if images else [])
    for place in places:
        if place.is_file():
            return place
    advice = f"nor is one of its name in {images}" if images else "say where it is with --images FOLDER"
    raise InputError(f"the picture {places[0]} is missing; {advice}")


def read_scenes(pictures: Sequence[tuple[Listed, ...]], images: Path | None) -> Iterator[Scene]:
    """Pictures and their readings, one after the other.

    Raises:
        InputError: where a picture is missing or is not the one that its maps were made for.
    """
    for items in tqdm(pictures, desc="Reading", unit="picture"):
        path = find_picture(items, images)
        pixels = np.asarray(load_image(path))
        readings = [item.read() for item in items]
        for item, reading in zip(items, readings, strict=True):
            (height, width), (h, w) = pixels.shape[:2], reading.geometry.original
            if (height, width) != (h, w):
                raise InputError(
                    f"{path} has {width}×{height} pixels, and the maps in {item.maps} are of a picture of {w}×{h}; "
                    "write the results anew, or say with --images where that picture is"
                )
        yield Scene(path.name, pixels, readings)


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("view", __doc__)
    parser.add_argument("results", nargs="+", metavar="[NAME=]RESULTS", help="one folder of results, or two")
    parser.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    parser.add_argument("--images", type=Path, help="folder of the pictures, where they have moved")
    parser.add_argument("--title", help="of the page (default: the names)")
    parser.add_argument(
        "--side", type=int, default=SIDE, help=f"pixels of a picture's longer side in the page (default: {SIDE})"
    )
    options = parse(parser, args, "output")
    if len(options.results) > 2:
        raise InputError(f"{len(options.results)} folders of results do not fit side by side; name one or two")
    check_ranges(options, side=(1, 10**6))
    if options.images and not options.images.is_dir():
        raise InputError(f"{options.images}: no such folder of images")
    folders = name_folders(options.results)
    lists = [list_results(folder) for _, folder in folders]
    for (_, folder), listed in zip(folders, lists, strict=True):
        protect(files_of(folder, listed))
        protect((options.images or item.image.parent) / item.image.name for item in listed)
    require_file(options.output)
    pictures = common_pictures(lists)
    if not pictures:
        raise InputError(f"{folders[0][1]} and {folders[1][1]} have no picture in common")
    names = [name for name, _ in folders]
    title = options.title or " and ".join(names)
    write_text(options.output, viewer(title, names, read_scenes(pictures, options.images), options.side))
    megabytes = options.output.stat().st_size / 1e6
    print(
        f"{len(pictures)} picture{'s' * (len(pictures) != 1)}, {megabytes:.1f} MB: open {options.output} in a browser"
    )
