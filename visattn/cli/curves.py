"""Plot logged metrics over epochs, for one run or several on the same axes.

    visattn curves runs/cifar10_vit --number val/accuracy --number val/loss --output cifar10.png
    visattn curves runs/a runs/b --number train/loss --means --number val/CIDEr-D --output compared.png

Reads `logs/*/metrics.csv` in the folder of each run; a resumed run has several, which are joined. Metric names are the
columns of that file. A metric logged within epochs, such as the training loss of a batch, is plotted as logged, or with
--means as its mean per epoch. The suffix of --output selects PNG, SVG or PDF.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program


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
    parser.add_argument("--title", default="", help="title of the figure")
    parser.add_argument("--note", default="", help="small text under the title")
    parser.add_argument("--output", type=Path, required=True, help="figure to write: .png, .svg or .pdf")
    options = parse(parser, args, "output")

    from visattn.tasks.curves import draw_curves

    draw_curves(options.runs, options.output, options.number, options.means, options.title, options.note)
    print(f"figure: {options.output}")
