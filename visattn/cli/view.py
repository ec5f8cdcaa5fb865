"""Browse results in a single, self-contained HTML file: images, words and attention maps.

    visattn view --output view.html runs/captions
    visattn view --output view.html "soft attention=runs/soft" "hard attention=runs/hard"

RESULTS is a folder written by `visattn caption` or `visattn overlay`, or captions/ or classes/ in the output folder of
`visattn demo`. Given two folders, images present in both are shown side by side. Image files are read from the paths in
the results; if they have moved, `--images` gives the folder to find them in by name.

The page shows each word's map, all of them at once (G), or two compared by wiping (W); its address names what is shown,
so that a copied link (L) leads to the very word. Of results that `visattn overlay --queries` wrote, a click on the
image shows where the patch there attends. `?` in the page lists all keys.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("view", __doc__)
    parser.add_argument("results", nargs="+", metavar="[NAME=]RESULTS", help="one or two folders of results")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--images", type=Path, help="folder of the images, if they have moved")
    parser.add_argument("--title", help="title of the page (default: the names of the results)")
    parser.add_argument(
        "--side", type=int, default=640, help="longer side of an image in the page, in pixels (default: 640)"
    )
    options = parse(parser, args, "output")
    if len(options.results) > 2:
        raise InputError(f"{len(options.results)} folders of results are given; at most two can be shown side by side")
    check_ranges(options, side=(1, 10**6))
    if options.images and not options.images.is_dir():
        raise InputError(f"{options.images} is not a folder; set --images to the folder of the images")

    from visattn.tasks.view import view

    count = view(options.results, options.output, options.images, options.title, options.side)
    megabytes = options.output.stat().st_size / 1e6
    print(f"{count} image{'s' * (count != 1)}, {megabytes:.1f} MB: open {options.output} in a browser")
