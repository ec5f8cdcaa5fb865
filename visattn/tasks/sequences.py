"""Compare attention mechanisms on sequences whose true alignment is known."""

import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from visattn import __version__
from visattn.errors import InputError
from visattn.figures import alignment_sheet
from visattn.files import write_text
from visattn.overlay import save_figure
from visattn.studies.sequences import MECHANISMS, TASKS, evaluate, make_batch, picture, train

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
        raise InputError(f"--mechanisms has '{unknown[0]}'; choose from {', '.join(MECHANISMS)}")
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
    save_figure(alignment_sheet(pictures), output / "alignment.png")
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
