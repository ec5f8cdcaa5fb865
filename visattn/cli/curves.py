r"""Plot logged metrics over epochs, for one run or several on the same axes.

    visattn curves runs/cifar10_vit --number val/accuracy --number val/loss --output cifar10.png
    visattn curves runs/a runs/b --number train/loss --means --number val/CIDEr-D --output compared.png
    visattn curves runs/compare/hard* --seeds --number val/true --along step --along train/seconds --output time.png

    visattn curves runs/compare/* --seeds --number val/true --label val/true="true captions" \
        --label hard="leave one out" --output named.png

Reads `logs/*/metrics.csv` in the folder of each run; a resumed run has several, which are joined. Metric names are the
columns of that file. A metric logged within epochs, such as the training loss of a batch, is plotted as logged, or with
--means as its mean per epoch. The suffix of --output selects PNG, SVG or PDF.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program
from visattn.errors import InputError


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("curves", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the --output folder of 'visattn fit'")
    parser.add_argument(
        "--number",
        action="append",
        required=True,
        metavar="NAME",
        help="metric to plot, such as val/accuracy; can be repeated",
    )
    parser.add_argument("--means", action="store_true", help="plot the mean of each epoch instead of every value")
    parser.add_argument(
        "--along",
        action="append",
        metavar="NAME",
        help="horizontal axis: epoch (default), step, train/seconds or train/processor_s (without validation); can be "
        "repeated",
    )
    parser.add_argument(
        "--seeds", action="store_true", help="plot the mean of runs whose names differ only in an ending such as _seed3"
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="text for a run (with --seeds, for its name without the seed), a metric or an axis; can be repeated",
    )
    parser.add_argument("--title", default="", help="title of the figure")
    parser.add_argument("--note", default="", help="small text below the panels")
    parser.add_argument("--output", type=Path, required=True, help="figure to write: .png, .svg or .pdf")
    options = parse(parser, args, "output")

    from visattn.tasks.curves import draw_curves

    options.along = options.along or ["epoch"]
    if options.means and options.along != ["epoch"]:
        raise InputError("--means is of epochs; leave out --along")
    labels = dict(label.partition("=")[::2] for label in options.label)
    if wrong := [label for label in options.label if "=" not in label]:
        raise InputError(f"--label is '{wrong[0]}'; it must be NAME=TEXT, such as val/true=\"true captions\"")
    texts = options.title, options.note
    draw_curves(
        *(options.runs, options.output, options.number, options.means, *texts, options.along, options.seeds, labels)
    )
    print(f"figure: {options.output}")
