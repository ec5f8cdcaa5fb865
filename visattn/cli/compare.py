"""Train every attention mechanism on the same data with the same budget, and compare them.

    visattn compare                                                  # on generated scenes
    visattn compare --data flickr8k --root data/flickr8k             # on photographs

Each mechanism is a configuration from configs/attention on top of the data set's own; nothing else differs. Writes a
table (compare.md), all numbers (results.json), a figure (compare.png: one row per mechanism, one column per word of a
reference caption, the same images for all) and the run of each mechanism. If restarted with the same output folder, it
keeps finished runs and continues the others.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError

DATA = ("shapes", "flickr8k")
# Rivals of soft attention, and other estimators of hard attention; only when they are named.
RIVALS = ("sparsemax", "entmax", "sigmoid", "sentinel", "whole")
ESTIMATORS = (
    *("hard_average", "hard_2", "hard_without_replacement", "hard_rebar"),
    *("hard_straight_through", "hard_reinmax"),
)
MECHANISMS = (
    *("mean", "soft_xu", "hard_xu", "soft", "hard", *ESTIMATORS, *RIVALS),
    *("local_m", "local_p", "multihead", "transformer"),
)


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("--data", choices=DATA, default="shapes", help="training data (default: shapes)")
    parser.add_argument("--root", type=Path, help="folder of the data set; required for --data flickr8k")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/compare"), help="output folder (default: runs/compare)"
    )
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        choices=MECHANISMS,
        default=[name for name in MECHANISMS if name not in RIVALS + ESTIMATORS],
        metavar="NAME",
        help=f"of {', '.join(MECHANISMS)} (default: all but {', '.join(RIVALS + ESTIMATORS)})",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="train each mechanism with each of these seeds; several give means ± standard deviations (default: 0)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="training runs in parallel, sharing the cores (default: 2)")
    parser.add_argument("--scenes", type=int, default=2, help="images in the figure (default: 2)")
    parser.add_argument(
        "--options",
        nargs=argparse.REMAINDER,
        default=[],
        help="pass all following arguments to every 'visattn' run, for example --trainer.max_epochs=1",
    )
    options = parse(parser, args, "output")
    check_ranges(options, jobs=(1, 256), scenes=(1, 100))
    if len(set(options.seeds)) < len(options.seeds) or not all(0 <= seed < 2**32 for seed in options.seeds):
        raise InputError(f"--seeds is {options.seeds}; give different whole numbers from 0 to {2**32 - 1}")
    words = options.options
    if options.data != "shapes":
        if options.root is None:
            raise InputError(f"--root is missing; --data {options.data} needs the folder of the data set")
        words = [f"--data.init_args.root={options.root}", f"--features={options.output / 'features'}", *words]
    elif options.root is not None:
        raise InputError("--root is given, but --data shapes draws its images; with --root, use --data flickr8k")

    from visattn.tasks.compare import SOURCES, compare

    source, trials = SOURCES[options.data], (options.mechanisms, options.seeds)
    compare(options.output, source, *trials, options.jobs, options.scenes, words)
    print((options.output / "compare.md").read_text(encoding="utf-8"))
    print(f"compare.md, compare.png and results.json are in {options.output}")
