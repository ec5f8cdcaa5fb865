"""Measure accuracy against work: glimpses at learned, random and central locations, and the whole picture.

    visattn glimpses --output runs/glimpses
    visattn glimpses --question mark --colour-first 300 --policy-rate 0.1 --std 0.1 --steps 1200 --output runs/mark

Trains four models with the same steps and the same kind of backbone on cluttered scenes of 128×128 pixels, and
measures each on unseen scenes after every glimpse: `work.png`, accuracy over multiply-adds, and `results.json`. A model
of glimpses reads a small share of the picture's pixels; only the learned policy sees the whole picture at low
resolution, and only to choose locations (Mnih 2014; Ba 2015). The colour of the mark needs --colour-first: a model
that finds the large thing learns from its mark, one that looks anywhere hardly does.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError

MODELS = ("learned", "random", "centre", "whole")
QUESTIONS = {
    "colour": "the colour of the large thing",
    "mark": "the colour of the mark on it",
    "shape": "the shape of that mark",
}


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("glimpses", __doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help=f"any of {', '.join(MODELS)}")
    asked = "; ".join(f"{name}, {meaning}" for name, meaning in QUESTIONS.items())
    parser.add_argument("--question", choices=tuple(QUESTIONS), default="colour", help=f"{asked} (default: colour)")
    parser.add_argument("--glimpses", type=int, default=4, help="glimpses at a picture (default: 4)")
    parser.add_argument("--size", type=int, default=12, help="side of the innermost square in pixels (default: 12)")
    parser.add_argument("--scales", type=int, default=2, help="squares of a glimpse, each twice as large (default: 2)")
    parser.add_argument("--steps", type=int, default=300, help="training steps with 64 scenes each (default: 300)")
    parser.add_argument(
        "--colour-first",
        type=int,
        default=0,
        metavar="STEPS",
        help="before, train with the colour of the large thing as the question for so many steps (default: 0)",
    )
    parser.add_argument(
        "--policy-rate",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="factor of the learning rate for what chooses locations, in the steps of --question itself (default: 1)",
    )
    parser.add_argument(
        "--std",
        type=float,
        default=0.25,
        help="of the drawn locations, in halves of the picture's side (default: 0.25)",
    )
    parser.add_argument("--scenes", type=int, default=6000, help="scenes to train on (default: 6000)")
    parser.add_argument("--test-scenes", type=int, default=1000, help="unseen scenes (default: 1000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds (default: 0 1 2)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/glimpses"), help="output folder (default: runs/glimpses)"
    )
    options = parse(parser, args, "output")
    counts = {"scenes": (1, 10**7), "test_scenes": (1, 10**7), "steps": (1, 10**7), "colour_first": (0, 10**7)}
    check_ranges(options, **counts, policy_rate=(0, 1000), seeds=(0, 2**32 - 1), glimpses=(1, 1000))
    if options.colour_first and options.question == "colour":
        raise InputError("--colour-first is for another question than the colour; give --question mark or shape")

    from visattn.data.cluttered import ShapesCluttered
    from visattn.studies.glimpses import Setting, mean_work
    from visattn.tasks.glimpses import measure

    setting = Setting(
        options.glimpses,
        options.size,
        options.scales,
        std=options.std,
        steps=options.steps,
        easier=options.colour_first,
        policy=options.policy_rate,
    )
    scenes = partial(ShapesCluttered, options.scenes, test_size=options.test_scenes, batch_size=setting.batch)
    easier = scenes(question="colour") if options.colour_first else None
    data, names = scenes(question=options.question), list(dict.fromkeys(options.models))
    found = measure(options.output, names, setting, options.seeds, data, easier)
    print(f"{'model':10}{'glimpse':>8}{'accuracy':>10}{'multiply-adds':>15}{'values read':>13}{'pixels seen':>13}")
    for name, works in found.items():
        for t in range(len(works[0].accuracy)):
            accuracy, cost, values, seen = (part[t] for part in mean_work(works))
            print(f"{name:10}{t + 1:>8}{accuracy:>10.1%}{cost:>15,.0f}{values:>13.1%}{seen:>13.1%}")
    print(f"Figure: {options.output / 'work.png'}")
