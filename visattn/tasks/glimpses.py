"""Train glimpse models and the whole-view model, and measure accuracy against work."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from visattn.data.cluttered import ShapesCluttered
from visattn.errors import require_choice
from visattn.figures import Line, work_sheet
from visattn.files import require_empty, write_json
from visattn.overlay import save_figure
from visattn.studies.glimpses import NAMES, Setting, Work, evaluate, make, mean_work, train
from visattn.tasks.provenance import provenance

TITLES = {
    "learned": "learned locations",
    "random": "random locations",
    "centre": "always the centre",
    "whole": "whole picture",
}


def measure(
    output: Path,
    names: Sequence[str],
    setting: Setting,
    seeds: Sequence[int],
    data: ShapesCluttered,
    easier: ShapesCluttered | None = None,
) -> dict[str, list[Work]]:
    """Train and measure; see the head of `visattn.cli.glimpses` for what is written.

    Args:
        output: folder for what is written; must not hold anything yet.
        names: models, of `NAMES`.
        setting: what is compared.
        seeds: of each model.
        data: trained on its training split, measured on its test split.
        easier: trained on before, for the setting's steps.

    Returns:
        For each model the results of each seed.

    Raises:
        InputError: for a name that there is not, a setting that does not suit the pictures, or a folder that is not
            empty.
    """
    for name in names:
        require_choice("--models", name, NAMES)
    require_empty(output)
    for name in names:  # before any scene is drawn
        make(name, setting, len(data.class_names), data.image_size)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    test = data.tensors("test")
    found: dict[str, list[Work]] = {name: [] for name in names}
    for number, seed in enumerate(seeds):
        for name in found:
            model = train(name, setting, data, seed, f"{name}, seed {seed}", easier)
            found[name].append(evaluate(model, *test, seed))
        _write(output, found, setting, seeds[: number + 1], data, time.perf_counter() - start)  # so far
    return found


def _write(
    output: Path,
    found: dict[str, list[Work]],
    setting: Setting,
    seeds: Sequence[int],
    data: ShapesCluttered,
    seconds: float,
) -> None:
    lines = [_line(name, works) for name, works in found.items()]
    asked = {"mark": "colour of the mark on the large thing", "shape": "shape of the mark on the large thing"}
    note = (
        f"Question: {asked.get(data.question, 'colour of the large thing')}, in cluttered scenes of "
        f"{data.image_size[0]}×{data.image_size[1]} pixels, {data.sizes['test']} unseen ones; mean of {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}, bars from the worst to the best. Multiply-adds are those of "
        "convolutions and matrix products."
    )
    save_figure(work_sheet(lines, title="Accuracy against work", note=note), output / "work.png")
    results = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "question": data.question,
        "setting": setting._asdict(),
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "results": {n: [{k: np.round(v, 6).tolist() for k, v in w._asdict().items()} for w in found[n]] for n in found},
    }
    write_json(output / "results.json", results)


def _line(name: str, works: Sequence[Work]) -> Line:
    mean = mean_work(works)
    runs = np.stack([work.accuracy for work in works])
    return Line(TITLES[name], mean.multiply_adds, mean.accuracy, runs.min(axis=0), runs.max(axis=0), mean.values[-1])
