"""Draw what a training has logged, along its epochs: one run, or several on one scale.

    visattn curves runs/cifar10_vit --number val/accuracy --number val/loss --output cifar10.png
    visattn curves runs/a runs/b --number train/loss --means --number val/CIDEr-D --output compared.png

Reads `logs/*/metrics.csv` in the folder of each run; a run that was resumed has several, which are joined. The names of
numbers are the columns of that file. A number that is logged within epochs, such as a training loss of single batches,
is drawn as it was logged, or with --means as its mean over each epoch. The figure is PNG, SVG or PDF, by its name.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program


@program
def main(args: Sequence[str] | None = None) -> None:
    """The program."""
    parser = command_parser("curves", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the --output of a 'visattn fit'")
    parser.add_argument(
        "--number", action="append", required=True, metavar="NAME", help="such as val/accuracy; may be given repeatedly"
    )
    parser.add_argument("--means", action="store_true", help="draw the mean of each epoch, not every number logged")
    parser.add_argument("--title", default="", help="a line above the figure")
    parser.add_argument("--note", default="", help="a small line under the title")
    parser.add_argument("--output", type=Path, required=True, help="the figure: .png, .svg or .pdf")
    options = parse(parser, args, "output")

    from visattn.tasks.curves import draw_curves

    draw_curves(options.runs, options.output, options.number, options.means, options.title, options.note)
    print(f"the figure is {options.output}")
