"""Look at results: one HTML file in which to walk through pictures, words and maps, with nothing else beside it.

    visattn view --output view.html runs/captions
    visattn view --output view.html "soft attention=runs/soft" "hard attention=runs/hard"

RESULTS is a folder that `visattn caption` or `visattn overlay` wrote; captions/ and classes/ in the folder of
`visattn demo` are such folders too. With two, the pictures that both have stand side by side. The pictures are those
that the results name; where they have moved, `--images` says where to find them by their name.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("view", __doc__)
    parser.add_argument("results", nargs="+", metavar="[NAME=]RESULTS", help="one folder of results, or two")
    parser.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    parser.add_argument("--images", type=Path, help="folder of the pictures, where they have moved")
    parser.add_argument("--title", help="of the page (default: the names)")
    parser.add_argument(
        "--side", type=int, default=640, help="pixels of a picture's longer side in the page (default: 640)"
    )
    options = parse(parser, args, "output")
    if len(options.results) > 2:
        raise InputError(f"{len(options.results)} folders of results do not fit side by side; name one or two")
    check_ranges(options, side=(1, 10**6))
    if options.images and not options.images.is_dir():
        raise InputError(f"{options.images}: no such folder of images")

    from visattn.tasks.view import view

    count = view(options.results, options.output, options.images, options.title, options.side)
    megabytes = options.output.stat().st_size / 1e6
    print(f"{count} picture{'s' * (count != 1)}, {megabytes:.1f} MB: open {options.output} in a browser")
