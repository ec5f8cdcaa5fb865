"""How fast is it? Ratios of runs that take turns, so that whatever else the machine does disturbs all alike.

    visattn benchmark vit --output runs/benchmark/vit.json
    visattn benchmark captioner --precision bf16
    visattn benchmark decoding --checkpoint runs/flickr8k_soft/best.ckpt
    visattn benchmark growth --figure docs/growth.png

The extra installs the peers: transformers, vit-pytorch and pycocoevalcap; those that are missing are left out of the
tables. Ours and theirs run in one process, with the same threads, precision and memory allocation. Beside the JSON
file of `--output` the same stands as Markdown. `--quick` takes tiny sizes, to see whether it runs.
"""

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

import visattn
from visattn.cli.models import PRECISIONS, add_import_option
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.files import require_file

SUBJECTS = {
    "vit": "A Vision Transformer beside its peers",
    "captioner": "A captioner's decoder beside one as tutorials write it",
    "decoding": "Many images at once against one at a time",
    "maps": "What looking into a Vision Transformer costs",
    "overlays": "Overlay sheets",
    "scores": "Caption scores beside the official tool's",
    "reward": "The reward's share of a self-critical step",
    "growth": "How cost grows",
}


def parser() -> argparse.ArgumentParser:
    """The options: those of every subject, and a few of their own."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu", help="auto, cpu or cuda (default: cpu)")
    shared.add_argument("--precision", choices=PRECISIONS, default="32", help="as of visattn caption (default: 32)")
    shared.add_argument("--rounds", type=int, default=5, help="timed rounds, of which the median counts (default: 5)")
    shared.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    shared.add_argument("--output", type=Path, help="a .json file for the numbers; a .md is written beside it")
    whole = command_parser("benchmark", __doc__)
    subjects = whole.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    own = {}
    for name, title in SUBJECTS.items():
        how = argparse.RawDescriptionHelpFormatter
        own[name] = subjects.add_parser(
            name, parents=[shared], help=title, description=_docstring(name), formatter_class=how
        )
    own["decoding"].add_argument("--checkpoint", type=Path, help="a captioner, in place of those with random weights")
    own["decoding"].add_argument("--images", type=int, default=64, help="at once (default: 64)")
    own["decoding"].add_argument("--beam", type=int, default=5, help="captions followed (default: 5)")
    own["decoding"].add_argument("--max-length", type=int, default=20, help="words (default: 20)")
    add_import_option(own["decoding"])
    own["maps"].add_argument("--timm", default="vit_small_patch16_224", help="the model (default: %(default)s)")
    own["maps"].add_argument("--images", type=int, default=8, help="at once (default: 8)")
    own["growth"].add_argument("--figure", type=Path, help="a .png, .svg or .pdf file for the curves")
    return whole


def _docstring(subject: str) -> str:
    """What a subject's module says of itself, read without importing it."""
    path = Path(visattn.__file__).parent / "studies" / "benchmarks" / f"{subject}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(parser(), args, "output", "figure")
    limits = {"rounds": (1, 10_000), "images": (1, 65_536), "max_length": (1, 10_000)}
    check_ranges(options, **{name: limit for name, limit in limits.items() if name in options})
    if getattr(options, "figure", None):
        require_file(options.figure, "--figure")

    from visattn.studies.benchmarks.report import check_path
    from visattn.tasks.benchmark import measure

    if options.output:
        check_path(options.output)
    report = measure(options, SUBJECTS[options.subject])
    print(report.markdown(), end="")
    if options.output:
        report.save(options.output)
