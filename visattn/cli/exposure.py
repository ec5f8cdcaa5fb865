"""Exposure bias of several captioners side by side: a table and a figure of what `visattn test` or `validate` found.

    visattn exposure --output runs/exposure runs/teacher_forcing runs/scheduled_sampling runs/self_critical

Takes the `exposure_<split>.json` that these programs write, or the folders that hold one, named as they should be
shown: `NAME=PATH`, or the folder's name. Writes `exposure.png` and `exposure.md`. What the numbers can show and what
not is said in `visattn/metrics/exposure.py`: the gap is not exposure bias alone, so another person's captions stand
beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program
from visattn.files import require_free


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("exposure", __doc__)
    parser.add_argument("reports", nargs="+", metavar="[NAME=]REPORT|FOLDER", help="what to show, in this order")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument("--title", help="a line above the figure")
    options = parse(parser, args, "output")

    from visattn.tasks.exposure import read_reports, write_report

    reports = read_reports(options.reports)
    require_free(options.output / name for name in ("exposure.png", "exposure.md"))
    print(write_report(reports, options.output, options.title))
    print(f"\nfigure and table are in {options.output}")
