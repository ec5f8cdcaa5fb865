"""Compare the exposure bias of several captioners, from the reports of `visattn test` or `visattn validate`.

    visattn exposure --output runs/exposure runs/teacher_forcing runs/scheduled_sampling runs/self_critical

Takes the `exposure_<split>.json` files that these commands write, or folders that contain one. `NAME=PATH` sets the
name shown (default: the folder's name). Writes `exposure.png` and `exposure.md`. The gap is not exposure bias alone, so
the numbers of another person's captions are given for comparison; see `visattn/metrics/exposure.py` for what the
numbers can and cannot show.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program
from visattn.files import require_free


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("exposure", __doc__)
    parser.add_argument("reports", nargs="+", metavar="[NAME=]REPORT|FOLDER", help="reports, in the order to show them")
    parser.add_argument("--output", type=Path, required=True, help="output folder, created if missing")
    parser.add_argument("--title", default="", help="title of the figure")
    options = parse(parser, args, "output")

    from visattn.tasks.exposure import read_reports, write_report

    reports = read_reports(options.reports)
    require_free(options.output / name for name in ("exposure.png", "exposure.md"))
    print(write_report(reports, options.output, options.title))
    print(f"\nfigure and table are in {options.output}")
