"""Train every attention mechanism with the same budget on the same data, and set them beside each other.

    visattn compare                                                  # on generated scenes
    visattn compare --data flickr8k --root data/flickr8k             # on photographs

A mechanism is a configuration in configs/attention over the data's own; nothing else differs. Writes to the output
folder the table (compare.md), all numbers (results.json), one figure (compare.png: rows are mechanisms, columns are the
words of a reference caption, the same pictures for all), and for each mechanism its run. Begun anew in the same folder,
it keeps what is finished and continues what is not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError

DATA = ("shapes", "flickr8k")
MECHANISMS = ("soft_xu", "hard_xu", "soft", "hard", "local_m", "local_p", "multihead", "transformer")


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("--data", choices=DATA, default="shapes", help="what to train on (default: shapes)")
    parser.add_argument("--root", type=Path, help="folder of the photographs, where --data is not shapes")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder (default: runs/compare)")
    parser.add_argument(
        "--mechanisms", nargs="+", choices=MECHANISMS, default=list(MECHANISMS), help="which ones (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, which share the cores (default: 2)")
    parser.add_argument("--scenes", type=int, default=2, help="pictures in the figure (default: 2)")
    parser.add_argument(
        "--options",
        nargs=argparse.REMAINDER,
        default=[],
        help="all words after this go to every run of 'visattn', such as --trainer.max_epochs=1",
    )
    options = parse(parser, args, "output")
    check_ranges(options, jobs=(1, 256), scenes=(1, 100))
    words = options.options
    if options.data != "shapes":
        if options.root is None:
            raise InputError("--root is missing: the folder of the photographs")
        words = [f"--data.init_args.root={options.root}", f"--features={options.output / 'features'}", *words]

    from visattn.tasks.compare import SOURCES, compare

    compare(options.output, SOURCES[options.data], options.mechanisms, options.jobs, options.scenes, words)
    print((options.output / "compare.md").read_text())
    print(f"compare.md, compare.png and results.json are in {options.output}")
