"""Compare gradient estimators of hard attention with the exact gradient.

    visattn estimators
    visattn estimators --curves 10 --seeds 0 1 2 3 4 --output runs/curves

A small decoder with hard attention names two marked symbols of a 3 × 3 grid, so the exact gradient of its attention is
a sum over 81 sequences of places. Every estimator's gradient is sampled many times for the same scenes, at
initialisation and half trained. Written: `estimators.md` (a table), `estimators.png` and `results.json`.

    bias        the mean's excess along the exact gradient, relative to it, ± standard error
    off         distance of the mean from the exact gradient, relative to it, corrected for noise
    deviation   the largest difference along 7 random directions, in standard errors; above 3.5 shows a bias
    variance    trace of the covariance of one gradient, relative to the squared exact gradient
    passes      decoder passes per caption, and milliseconds per gradient

With --curves the same decoder is trained with every estimator for that many seconds of processor time, and measured on
unseen scenes: α at the true places and captions right, at equal time and at equal steps (`curves.md`, `curves.png`,
`curves.json`).
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program

METHODS = (
    "enumeration",
    "reinforce",
    "average",
    "learned",
    "rloo",
    "without-replacement",
    "rebar",
    "relax",
    "straight-through",
    "reinmax",
    "st-gumbel",
    "gumbel",
    "gumbel-sharp",
)


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("estimators", __doc__)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="NAME",
        help=f"any of {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument("--draws", type=int, default=250, help="gradients per estimator and decoder (default: 250)")
    parser.add_argument("--scenes", type=int, default=8, help="scenes in a batch (default: 8)")
    parser.add_argument(
        "--warmup",
        type=int,
        default=100,
        help="steps that baselines and control variates are fitted for (default: 100)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of gradients (default: 0)")
    parser.add_argument(
        "--curves", type=float, metavar="SECONDS", help="train for so many seconds each, instead of sampling gradients"
    )
    parser.add_argument("--steps", type=int, default=300, help="minimum training steps, with --curves (default: 300)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of trainings, with --curves (default: 0 1 2)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/estimators"), help="output folder (default: runs/estimators)"
    )
    options = parse(parser, args, "output")
    check_ranges(options, draws=(3, 10**6), scenes=(1, 1000), warmup=(0, 10**6), seed=(0, 2**32 - 2))
    check_ranges(options, curves=(0.01, 10**6), steps=(1, 10**7), seeds=(0, 2**31 - 1))

    from visattn.tasks.estimators import compare, learn_all

    if options.curves is not None:
        print(learn_all(options.output, options.methods, options.curves, options.steps, options.seeds))
        print(f"Written: {options.output / 'curves.md'}, {options.output / 'curves.png'}")
        return
    table = compare(options.output, options.methods, options.draws, options.scenes, options.warmup, options.seed)
    print(table)
    print(f"Written: {options.output / 'estimators.md'}, {options.output / 'estimators.png'}")
