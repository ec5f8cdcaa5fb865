"""Compare attention mechanisms on sequences whose true alignment is known.

    visattn sequences

An image is a grid of H × W places and a sequence a grid of 1 × S, so every mechanism works on it unchanged. In both
tasks each target token depends on one source token at a known place: reversal (the last symbol first), and copying into
another alphabet, which is monotonic. Trains a small model for each task and mechanism, and reports how often the model
attended to the true place: `alignment.png`, the plot of Bahdanau 2014 (figure 3), and `results.json`.

The annotation vector of a source token encodes its symbol and position but nothing about its neighbours, so the task
can only be solved by attending to the true place. local-m moves its window from left to right, so it can copy; in
reversal the true place is inside its window only for the tokens in the middle.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program

TASKS = ("reversal", "copying")
MECHANISMS = ("soft", "hard", "local-m", "local-p", "multi-head")
BATCH = 32  # sequences


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("sequences", __doc__)
    parser.add_argument("--task", choices=(*TASKS, "both"), default="both", help="task to learn (default: both)")
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        default=list(MECHANISMS),
        metavar="NAME",
        help=f"any of {', '.join(MECHANISMS)} (default: all)",
    )
    parser.add_argument(
        "--steps", type=int, default=300, help=f"training steps, with {BATCH} sequences each (default: 300)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/sequences"), help="output folder (default: runs/sequences)"
    )
    options = parse(parser, args, "output")
    check_ranges(options, steps=(1, 10**7), seed=(0, 2**32 - 2))

    from visattn.tasks.sequences import compare

    tasks = list(TASKS) if options.task == "both" else [options.task]
    results = compare(options.output, tasks, options.mechanisms, options.steps, options.seed)
    print(f"{'task':10}{'mechanism':12}{'tokens right':>14}{'aligned':>10}{'entropy':>10}{'seconds':>10}")
    for row in results["results"]:
        print(
            f"{row['task']:10}{row['mechanism']:12}{row['token_accuracy']:>14.1%}{row['alignment_accuracy']:>10.1%}"
            f"{row['entropy']:>10.2f}{row['seconds']:>10.1f}"
        )
    print(f"Done in {results['seconds']:.0f} seconds. Plot: {options.output / 'alignment.png'}")
