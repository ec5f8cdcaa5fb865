"""Compare attention mechanisms on sequences whose true alignment is known, and with one fixed vector.

    visattn sequences
    visattn sequences --task dates --steps 600
    visattn sequences --train-lengths 1 20 --lengths 5 10 20 40 80 --steps 500 --seeds 0 1 2

An image is a grid of H × W places and a sequence a grid of 1 × S, so every mechanism works on it unchanged. Tasks are
reversal (the last symbol first), copying into another alphabet, which is monotonic, and dates: "3rd of May, 2009" into
"2009-05-03". Trains a small model for each task and mechanism, and reports how often the model attended to a true
place: `alignment.png`, the plot of Bahdanau 2014 (figure 3), `sequences.md` and `results.json`. With --lengths it also
measures sequences of these lengths, longer than those of training too: `lengths.png`.

With --encoder places the annotation vector of a source token encodes its symbol and position but nothing about its
neighbours, so reversal and copying can only be solved by attending to the true place. With --encoder recurrent a
bidirectional GRU reads the source first (Bahdanau 2014), for sequences of any length and for dates.

Two mechanisms are baselines without attention: mean, the mean of all annotation vectors, and fixed, the final states of
the recurrent encoder (Cho 2014), one vector however long the source is. local-m moves its window from left to right, so
it can copy; in reversal the true place is inside its window only for the tokens in the middle.
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import check_ranges, command_parser, parse, program

TASKS = ("reversal", "copying", "dates")
MECHANISMS = ("fixed", "mean", "soft", "hard", "local-m", "local-p", "multi-head")
ENCODERS = ("places", "recurrent")
BATCH = 32  # sequences


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("sequences", __doc__)
    parser.add_argument(
        "--task", choices=(*TASKS, "both"), default="both", help="task to learn (default: both, reversal and copying)"
    )
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        metavar="NAME",
        help=f"any of {', '.join(MECHANISMS)} (default: all; all but fixed with --encoder places)",
    )
    parser.add_argument(
        "--encoder",
        choices=ENCODERS,
        help="what makes annotation vectors (default: places; recurrent for dates and with --lengths)",
    )
    parser.add_argument(
        "--train-lengths",
        type=int,
        nargs=2,
        default=[5, 12],
        metavar=("MIN", "MAX"),
        help="lengths of sequences in training; not for dates (default: 5 12)",
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[], metavar="N", help="lengths to measure accuracy at; not for dates"
    )
    parser.add_argument(
        "--steps", type=int, default=300, help=f"training steps, with {BATCH} sequences each (default: 300)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="random seeds (default: 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/sequences"), help="output folder (default: runs/sequences)"
    )
    options = parse(parser, args, "output")
    check_ranges(options, steps=(1, 10**7), seeds=(0, 2**32 - 2), lengths=(1, 1000), train_lengths=(1, 1000))

    from visattn.tasks.sequences import Plan, compare

    tasks = ["reversal", "copying"] if options.task == "both" else [options.task]
    plan = Plan.of(
        tasks=tasks,
        mechanisms=options.mechanisms,
        encoder=options.encoder,
        trained=options.train_lengths,
        lengths=options.lengths,
        steps=options.steps,
        seeds=options.seeds,
    )
    print(compare(options.output, plan))
    print(f"Written: {', '.join(str(path) for path in sorted(options.output.iterdir()))}")
