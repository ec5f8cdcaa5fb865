"""The same attention on a sequence, where it is known what should be attended to.

    visattn sequences

An image is a grid of H × W places; a sentence is a grid of 1 × S, and every mechanism works on it unchanged. Two tasks,
in which each target token is made of one source token, at a known place: reversal (the last symbol first), and copying
into another alphabet, which is monotonic. Trains a small model for each task and mechanism, and writes how often each
looked at the true place: `alignment.png`, the plot of Bahdanau 2014 (figure 3), and `results.json`.

A source token's annotation vector says which symbol it is and where it stands, and knows nothing of its neighbours:
only who looks at the true place can solve the task. local-m moves its window from left to right, so it can copy, but on
reversal the true place is in its window for the words in the middle alone.
"""

import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from visattn import __version__
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.errors import InputError
from visattn.files import write_text
from visattn.overlay import alignment_sheets, save_figure
from visattn.studies.sequences import BATCH, MECHANISMS, TASKS, evaluate, make_batch, picture, train

UNSEEN = 500  # sequences that results are measured on


def compare(output: Path, tasks: Sequence[str], mechanisms: Sequence[str], steps: int, seed: int) -> dict:
    """Train and measure every mechanism on every task; see the head of this file for what is written.

    Args:
        output: folder for what is written; must not hold anything yet.
        tasks: names of `TASKS`.
        mechanisms: names of `MECHANISMS`.
        steps: of each training.
        seed: of all that is random.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: for a mechanism that there is not, fewer than one step, or a folder that is not empty.
    """
    unknown = [name for name in mechanisms if name not in MECHANISMS]
    if unknown:
        raise InputError(f"--mechanisms has '{unknown[0]}', which is none of {', '.join(MECHANISMS)}")
    if steps < 1:
        raise InputError(f"--steps is {steps}; training needs at least 1")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; remove it, or choose another with --output")
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    rows, pictures = [], []
    for name in tasks:
        models = {}
        unseen = make_batch(TASKS[name], UNSEEN, torch.Generator().manual_seed(seed + 1))
        for mechanism in dict.fromkeys(mechanisms):
            began = time.perf_counter()
            models[mechanism] = train(TASKS[name], MECHANISMS[mechanism], steps, seed, title=f"{name}, {mechanism}")
            seconds = round(time.perf_counter() - began, 1)
            scores = evaluate(models[mechanism], unseen)
            rows.append({"task": name, "mechanism": mechanism, **scores, "seconds": seconds})
        pictures.append(picture(TASKS[name], models, rows[-len(models) :], seed))
    save_figure(alignment_sheets(pictures), output / "alignment.png")
    results = {
        "date": date.today().isoformat(),
        "versions": {"visattn": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "steps": steps,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "results": rows,
    }
    write_text(output / "results.json", json.dumps(results, ensure_ascii=False, indent=1))
    return results


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("sequences", __doc__)
    parser.add_argument("--task", choices=(*TASKS, "both"), default="both", help="what is learnt (default: both)")
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        default=list(MECHANISMS),
        metavar="NAME",
        help=f"any of {', '.join(MECHANISMS)} (default: all)",
    )
    parser.add_argument("--steps", type=int, default=300, help=f"batches of {BATCH} sequences each (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, sequences and draws (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/sequences"), help="folder (default: runs/sequences)")
    options = parse(parser, args, "output")
    check_ranges(options, steps=(1, 10**7), seed=(0, 2**32 - 2))
    tasks = list(TASKS) if options.task == "both" else [options.task]
    results = compare(options.output, tasks, options.mechanisms, options.steps, options.seed)
    print(f"{'task':10}{'mechanism':12}{'tokens right':>14}{'aligned':>10}{'entropy':>10}{'seconds':>10}")
    for row in results["results"]:
        print(
            f"{row['task']:10}{row['mechanism']:12}{row['token_accuracy']:>14.1%}{row['alignment_accuracy']:>10.1%}"
            f"{row['entropy']:>10.2f}{row['seconds']:>10.1f}"
        )
    print(f"Done in {results['seconds']:.0f} seconds. Look at {options.output / 'alignment.png'}")
