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
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from visattn.benchmarks import captioner, decoding, growth, maps, overlays, reward, scores, vit
from visattn.benchmarks.report import Report, check_path
from visattn.benchmarks.setting import Setting
from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.decoding import BeamSearch
from visattn.files import require_file
from visattn.overlay import save_figure

SUBJECTS = {
    "vit": (vit, "A Vision Transformer beside its peers"),
    "captioner": (captioner, "A captioner's decoder beside one as tutorials write it"),
    "decoding": (decoding, "Many images at once against one at a time"),
    "maps": (maps, "What looking into a Vision Transformer costs"),
    "overlays": (overlays, "Overlay sheets"),
    "scores": (scores, "Caption scores beside the official tool's"),
    "reward": (reward, "The reward's share of a self-critical step"),
    "growth": (growth, "How cost grows"),
}


def parser() -> argparse.ArgumentParser:
    """The options: those of every subject, and a few of their own."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    shared.add_argument("--precision", default="32", help="32, bf16 for bfloat16 by autocast, or auto (default: 32)")
    shared.add_argument("--rounds", type=int, default=5, help="timed rounds, of which the median counts (default: 5)")
    shared.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    shared.add_argument("--output", type=Path, help="a .json file for the numbers; a .md is written beside it")
    whole = command_parser("benchmark", __doc__)
    subjects = whole.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    own = {}
    for name, (module, title) in SUBJECTS.items():
        how = argparse.RawDescriptionHelpFormatter
        own[name] = subjects.add_parser(
            name, parents=[shared], help=title, description=module.__doc__, formatter_class=how
        )
    sizes = decoding.FULL
    own["decoding"].add_argument("--checkpoint", type=Path, help="a captioner, in place of those with random weights")
    own["decoding"].add_argument("--images", type=int, default=sizes.images, help="at once (default: %(default)s)")
    own["decoding"].add_argument(
        "--beam", type=int, default=sizes.beam, help="captions followed (default: %(default)s)"
    )
    own["decoding"].add_argument("--max-length", type=int, default=sizes.longest, help="words (default: %(default)s)")
    own["maps"].add_argument("--timm", default=maps.FULL.model, help="the model (default: %(default)s)")
    own["maps"].add_argument("--images", type=int, default=maps.FULL.images, help="at once (default: %(default)s)")
    own["growth"].add_argument("--figure", type=Path, help="a .png, .svg or .pdf file for the curves")
    return whole


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(parser(), args, "output", "figure")
    limits = {"rounds": (1, 10_000), "images": (1, 65_536), "max_length": (1, 10_000)}
    check_ranges(options, **{name: limit for name, limit in limits.items() if name in options})
    setting = Setting.of(options.device, options.precision, options.rounds)
    module, title = SUBJECTS[options.subject]
    if getattr(options, "figure", None):
        require_file(options.figure, "--figure")
    if options.output:
        check_path(options.output)
    tables = measured(options, setting, module)
    report = Report(title, setting.conditions(*module.PACKAGES), tables)
    print(report.markdown(), end="")
    if options.output:
        report.save(options.output)


def measured(options: argparse.Namespace, setting: Setting, module: ModuleType) -> list:
    """The tables of a subject."""
    sizes = module.QUICK if options.quick else module.FULL
    if module is growth:
        tables, figure = growth.measure(setting, sizes)
        if options.figure:
            save_figure(figure, options.figure)
        return tables
    if module is maps and not options.quick:
        sizes = maps.Sizes(options.timm, options.images)
    if module is not decoding:
        return module.measure(setting, sizes)
    BeamSearch(options.beam)
    if not options.quick:
        sizes = decoding.Sizes(options.images, options.beam, options.max_length)
    if options.checkpoint is None:
        return decoding.measure(setting, sizes)
    model = load_model(options.checkpoint, Captioner)
    case = decoding.Case(
        str(options.checkpoint), model.decoder, model.encoder.size, model.encoder.grid(model.image_size)
    )
    return decoding.measure(setting, sizes, [case])
