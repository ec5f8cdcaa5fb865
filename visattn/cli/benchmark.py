"""Measure speed and memory. Alternatives run in turn, so that other load on the machine affects all of them alike.

    visattn benchmark vit --output runs/benchmark/vit.json
    visattn benchmark captioner --precision bf16
    visattn benchmark decoding --checkpoint runs/flickr8k_soft/best.ckpt
    visattn benchmark growth --figure docs/growth.png

The extra `benchmark` installs the other implementations: transformers, vit-pytorch and pycocoevalcap. Missing ones are
left out of the tables. All implementations run in one process, with the same threads, precision and memory allocator.
`--output FILE.json` also writes the tables to FILE.md. `--quick` uses tiny sizes, only to check that the benchmark
runs.
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
    "vit": "Vision Transformer, compared with other implementations",
    "captioner": "Caption decoder, compared with the usual tutorial code",
    "decoding": "Decoding in batches, compared with one image at a time",
    "maps": "Cost of attention maps of a Vision Transformer",
    "overlays": "Overlay sheets",
    "scores": "Caption scores, compared with the official tool",
    "reward": "Share of the reward in a self-critical training step",
    "growth": "Scaling of cost with problem size",
    "start": "From pressing return to the first caption and training step",
}


def parser() -> argparse.ArgumentParser:
    """Options shared by all subjects, and those of each subject."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu", help="auto, cpu or cuda (default: cpu)")
    shared.add_argument("--precision", choices=PRECISIONS, default="32", help="as in visattn caption (default: 32)")
    shared.add_argument("--rounds", type=int, default=5, help="timed rounds; the median is reported (default: 5)")
    shared.add_argument("--quick", action="store_true", help="use tiny sizes; the numbers are meaningless")
    shared.add_argument("--output", type=Path, help=".json file for the numbers; a .md file is written next to it")
    whole = command_parser("benchmark", __doc__)
    subjects = whole.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    own = {}
    for name, title in SUBJECTS.items():
        how = argparse.RawDescriptionHelpFormatter
        own[name] = subjects.add_parser(
            name, parents=[shared], help=title, description=_docstring(name), formatter_class=how
        )
    own["decoding"].add_argument("--checkpoint", type=Path, help="captioner to time (default: random weights)")
    own["decoding"].add_argument("--images", type=int, default=64, help="images per batch (default: 64)")
    own["decoding"].add_argument("--beam", type=int, default=5, help="beam size (default: 5)")
    own["decoding"].add_argument("--max-length", type=int, default=20, help="maximum caption length (default: 20)")
    add_import_option(own["decoding"])
    own["maps"].add_argument("--timm", default="vit_small_patch16_224", help="timm model (default: %(default)s)")
    own["maps"].add_argument("--images", type=int, default=8, help="images per batch (default: 8)")
    own["growth"].add_argument("--figure", type=Path, help=".png, .svg or .pdf file for the curves")
    return whole


def _docstring(subject: str) -> str:
    """The docstring of a subject's module, read without importing it."""
    path = Path(visattn.__file__).parent / "studies" / "benchmarks" / f"{subject}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
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
