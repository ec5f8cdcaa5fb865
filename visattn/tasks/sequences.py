"""Compare attention mechanisms on sequences whose true alignment is known; see `visattn sequences --help`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from visattn.attention import HardAttention
from visattn.errors import InputError, require_choice
from visattn.figures import Alignment, LengthLine, Lengths, alignment_sheet, lengths_sheet
from visattn.files import require_empty, write_json, write_text
from visattn.overlay import save_figure
from visattn.studies.markdown import markdown
from visattn.studies.sequences import (
    MECHANISMS,
    TASKS,
    Encoding,
    Reordering,
    SequenceModel,
    Task,
    alignment,
    evaluate,
    train,
)
from visattn.tasks.provenance import provenance
from visattn.vocabulary import END, SPECIALS

UNSEEN, UNSEEN_LONG = 500, 200  # sequences that results are measured on: all lengths, and each of --lengths
DRAWN = 12  # symbols of the sequence in the figure, or nearly
TITLES = {"fixed": "one fixed vector", "mean": "the mean vector"}  # of the baselines without attention

_HEAD = ("task", "mechanism", "symbols right", "sequences right", "aligned", "entropy", "seconds")


class Plan(NamedTuple):
    """What is trained and measured.

    Attributes:
        tasks: name and task.
        mechanisms: names of `MECHANISMS`.
        encoder: see `SequenceModel`.
        trained: minimum and maximum length in training, of all tasks but dates.
        lengths: what accuracy is also measured at, ascending.
        steps: of each training.
        seeds: of each training.
    """

    tasks: dict[str, Task]
    mechanisms: Sequence[str]
    encoder: Encoding
    trained: tuple[int, int]
    lengths: Sequence[int]
    steps: int
    seeds: Sequence[int]

    @classmethod
    def of(
        cls,
        tasks: Sequence[str],
        mechanisms: Sequence[str] | None,
        encoder: Encoding | None,
        trained: Sequence[int],
        lengths: Sequence[int],
        steps: int,
        seeds: Sequence[int],
    ) -> "Plan":
        """A plan from the options of the command; None for its defaults.

        Raises:
            InputError: if the options do not agree.
        """
        shortest, longest = trained
        if shortest > longest:
            raise InputError(f"--train-lengths is {shortest} {longest}; give the smaller number first")
        if "dates" in tasks and lengths:
            raise InputError("--lengths does not apply to --task dates, whose formats have lengths of their own")
        needed = "dates" in tasks or bool(lengths)
        if needed and encoder == "places":
            which = "--lengths, which goes beyond the places that are learnt" if lengths else "--task dates"
            raise InputError(f"--encoder is places, and cannot be used with {which}; use --encoder recurrent")
        encoder = encoder or ("recurrent" if needed else "places")
        if mechanisms is None:
            mechanisms = [name for name in MECHANISMS if name != "fixed" or encoder == "recurrent"]
        for name in mechanisms:
            require_choice("--mechanisms", name, MECHANISMS)
        if "fixed" in mechanisms and encoder == "places":
            raise InputError("--mechanisms has fixed, the final states of an encoder: use --encoder recurrent, or mean")
        chosen = {
            name: task._replace(lengths=(shortest, longest)) if isinstance(task, Reordering) else task
            for name, task in TASKS.items()
            if name in tasks
        }
        unique = [list(dict.fromkeys(values)) for values in (mechanisms, seeds)]
        return cls(chosen, unique[0], encoder, (shortest, longest), sorted(set(lengths)), steps, unique[1])


def compare(output: Path, plan: Plan) -> str:
    """Train and measure every mechanism on every task; see the head of `visattn.cli.sequences` for what is written.

    Args:
        output: folder for what is written; must not hold anything yet.
        plan: what is trained.

    Returns:
        The tables, in Markdown.

    Raises:
        InputError: if the folder is not empty.
    """
    require_empty(output)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    rows: list[dict] = []
    for seed in plan.seeds:
        pictures = []
        for name, task in plan.tasks.items():
            drawn = {}
            for mechanism in plan.mechanisms:
                began = time.perf_counter()
                title = f"{name}, {mechanism}, seed {seed}"
                model = train(task, MECHANISMS[mechanism], plan.steps, seed, plan.encoder, title=title)
                seconds = round(time.perf_counter() - began, 1)
                scores = measure(model, task, plan.lengths, seed)
                rows.append({"task": name, "mechanism": mechanism, "seed": seed, **scores, "seconds": seconds})
                drawn[mechanism] = model, rows[-1]
                text = _write(output, plan, rows, time.perf_counter() - start)  # so far
            pictures.append(picture(task, drawn, seed))
        if seed == plan.seeds[0]:
            save_figure(alignment_sheet(pictures), output / "alignment.png")
        if plan.lengths:
            save_figure(lengths_figure(plan, rows), output / "lengths.png")
    return text


def _write(output: Path, plan: Plan, rows: Sequence[dict], seconds: float) -> str:
    """Write numbers and return the tables; see `compare`."""
    text = table(rows)
    if plan.lengths:
        text += f"\n\nSymbols right, by length (in training: {plan.trained[0]} to {plan.trained[1]})\n\n"
        text += lengths_table(plan, rows)
    results = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "encoder": plan.encoder,
        "train_lengths": plan.trained,
        "steps": plan.steps,
        "seeds": plan.seeds,
        "seconds": round(seconds, 1),
        "results": rows,
    }
    write_text(output / "sequences.md", text + "\n")
    write_json(output / "results.json", results)
    return text


def measure(model: SequenceModel, task: Task, lengths: Sequence[int], seed: int) -> dict:
    """Scores on unseen sequences, and under `by_length` on those of each of the lengths."""
    unseen = task.batch(UNSEEN, torch.Generator().manual_seed(seed + 1), "test")
    scores: dict = evaluate(model, unseen)
    if isinstance(task, Reordering) and lengths:
        scores["by_length"] = {
            length: evaluate(
                model,
                task._replace(lengths=(length, length)).batch(
                    UNSEEN_LONG, torch.Generator().manual_seed(seed + 1), "test"
                ),
            )
            for length in lengths
        }
    return scores


def runs_of(rows: Sequence[dict]) -> dict[tuple[str, str], list[dict]]:
    """The rows of each task and mechanism, a row for each seed."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["task"], row["mechanism"]), []).append(row)
    return found


def table(rows: Sequence[dict]) -> str:
    """Means over the seeds, in Markdown."""
    lines = [list(_HEAD)]
    for (task, mechanism), runs in runs_of(rows).items():
        names = ("token_accuracy", "sequence_accuracy", "alignment_accuracy", "entropy", "seconds")
        right, whole, aligned, spread, seconds = (np.mean([run[name] for run in runs]) for name in names)
        cells = [f"{right:.1%}", f"{whole:.1%}", f"{aligned:.1%}", f"{spread:.2f}", f"{seconds:.0f}"]
        lines.append([task, mechanism, *cells])
    return markdown(lines, text_columns=2)


def lengths_table(plan: Plan, rows: Sequence[dict]) -> str:
    """Accuracy at each length, means over the seeds, in Markdown."""
    lines = [["task", "mechanism", *map(str, plan.lengths)]]
    for (task, mechanism), runs in runs_of(rows).items():
        cells = [f"{value:.0%}" for value in accuracies(runs, plan.lengths).mean(axis=0)]
        lines.append([task, mechanism, *cells])
    return markdown(lines, text_columns=2)


def accuracies(runs: Sequence[dict], lengths: Sequence[int]) -> np.ndarray:
    """(runs, lengths) accuracy of symbols."""
    return np.array([[run["by_length"][length]["token_accuracy"] for length in lengths] for run in runs])


def lengths_figure(plan: Plan, rows: Sequence[dict]) -> Figure:
    """Accuracy against length, a panel for each task."""
    lines: dict[str, list[LengthLine]] = {}
    for (task, mechanism), runs in runs_of(rows).items():
        right = accuracies(runs, plan.lengths)
        parts = right.mean(axis=0), right.min(axis=0), right.max(axis=0)
        line = LengthLine(TITLES.get(mechanism, mechanism), *parts, control=mechanism in TITLES)
        lines.setdefault(task, []).append(line)
    found = [Lengths(plan.tasks[name].title, plan.lengths, plan.trained, drawn) for name, drawn in lines.items()]
    count = len({row["seed"] for row in rows})
    seeds = f"mean of {count} seeds, bars from the worst to the best" if count > 1 else "one seed"
    note = (
        f"Symbols right in generated sequences, {UNSEEN_LONG} unseen ones of each length; {plan.steps} training steps, "
        f"{seeds}. Shaded: lengths of {plan.trained[0]} to {plan.trained[1]} symbols, as in training."
    )
    return lengths_sheet(found, title="Accuracy against length: attention, and one vector", note=note)


def picture(task: Task, drawn: dict[str, tuple[SequenceModel, dict]], seed: int) -> Alignment:
    """The alignments of a task's models, each with its scores, for one unseen sequence of about `DRAWN` symbols."""
    batch = task.batch(50, torch.Generator().manual_seed(seed), "test")
    length = batch.mask.sum(dim=1)
    row = int((length - DRAWN).abs().argmin())
    size, said = int(length[row]), batch.tokens[row, 1:]
    spoken = int((said == END).nonzero()[0])
    seen = {name: alignment(model, batch) for name, (model, _) in drawn.items()}

    def crop(part: torch.Tensor) -> np.ndarray:
        return part[row, :spoken, :size].numpy()

    hard = {name for name, (model, _) in drawn.items() if isinstance(model.decoder.attention, HardAttention)}
    return Alignment(
        maps=[(TITLES.get(name, name), crop(glimpses.weights)) for name, glimpses in seen.items()],
        source=[task.source[i] for i in batch.source[row, :size]],
        target=[task.target[i - len(SPECIALS)] for i in said[:spoken]],
        expected=crop(batch.truth),
        drawn=[crop(glimpses.focus) if name in hard else None for name, glimpses in seen.items()],
        notes=[
            f"aligned {100 * scores['alignment_accuracy']:.0f}%, right {100 * scores['token_accuracy']:.0f}%"
            for _, scores in drawn.values()
        ],
        heading=task.title,
    )
