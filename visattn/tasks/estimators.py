"""Compare gradient estimators of hard attention with the exact gradient; see `visattn estimators --help`."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from visattn.errors import require_choice
from visattn.figures import Curves, Estimates, curves_sheet, estimates_sheet
from visattn.files import require_empty, write_json, write_text
from visattn.overlay import save_figure
from visattn.studies.estimators import METHODS, half_trained, make_decoder, make_scenes, measure, pointing
from visattn.studies.learning import UNSEEN, Progress, learn
from visattn.studies.markdown import markdown
from visattn.tasks.provenance import provenance

LEVEL = 0.9  # of pointing, whose time is compared
_HEAD = ("estimator", "bias ± s.e.", "off", "deviation", "variance", "passes", "variance × passes", "ms")


def compare(output: Path, methods: Sequence[str], draws: int, scenes: int, warmup: int, seed: int) -> str:
    """Measure methods at initialisation and half trained, and write table, figure and numbers.

    Args:
        output: folder for what is written; must not hold anything yet.
        methods: names of `METHODS`.
        draws: gradients per method and decoder.
        scenes: in the batch.
        warmup: steps that baselines and control variates are fitted for.
        seed: of all that is random.

    Returns:
        The table, in Markdown.

    Raises:
        InputError: for an unknown method, or a folder that is not empty.
    """
    _check(output, methods)
    start = time.perf_counter()
    trained, steps = half_trained(seed)
    batch = make_scenes(scenes, torch.Generator().manual_seed(seed + 1))
    stages = {"at initialisation": make_decoder(seed=seed), f"half trained, {steps} steps": trained}
    work = tqdm(total=len(stages) * len(methods), unit="method", leave=False, disable=None)
    measured: dict[str, list[dict]] = {}
    for stage, decoder in stages.items():
        measured[stage] = []
        for name in dict.fromkeys(methods):
            work.set_description(f"{stage}: {name}")
            # Enumeration has no variance, and is slow.
            numbers = measure(METHODS[name], decoder, batch, 3 if name == "enumeration" else draws, warmup, seed)
            measured[stage].append({"method": name, "unbiased": METHODS[name].unbiased, **numbers})
            work.update()
    work.close()
    shares = {stage: pointing(decoder, batch) for stage, decoder in stages.items()}
    text = "\n\n".join(table(stage, shares[stage], rows) for stage, rows in measured.items())
    note = (
        f"{draws} gradients each, {scenes} scenes, seed {seed}. Blue: unbiased; orange: biased. The smaller variance "
        "× passes, the less work for a gradient of given precision."
    )
    figure = [
        Estimates(stage, [(METHODS[row["method"]].title, row) for row in rows if row["method"] != "enumeration"])
        for stage, rows in measured.items()
    ]
    save_figure(
        estimates_sheet(figure, title="Gradient estimators of hard attention", note=note), output / "estimators.png"
    )
    results = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "draws": draws,
        "scenes": scenes,
        "warmup": warmup,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "stages": [{"stage": stage, "pointing": shares[stage], "results": rows} for stage, rows in measured.items()],
    }
    write_text(output / "estimators.md", text + "\n")
    write_json(output / "results.json", results)
    return text


def learn_all(output: Path, methods: Sequence[str], seconds: float, steps: int, seeds: Sequence[int]) -> str:
    """Train with each method for the same time and the same steps, and write table, figure and numbers after each.

    Args:
        output: folder for what is written; must not hold anything yet.
        methods: names of `METHODS`.
        seconds: of processor time that each training has at least.
        steps: that it has at least.
        seeds: a training for each.

    Returns:
        The table, in Markdown.

    Raises:
        InputError: as `compare`.
    """
    _check(output, methods)
    done: dict[str, list[Progress]] = {}
    text = ""
    runs = [(name, seed) for seed in seeds for name in dict.fromkeys(methods)]  # so that a stopped study is fair
    for name, seed in tqdm(runs, unit="training", leave=False, disable=None):
        done.setdefault(name, []).append(learn(METHODS[name], seconds, steps, seed))
        text = _write_curves(output, done, {"seconds": seconds, "steps": steps}, seeds)
    return text


def _write_curves(output: Path, done: dict[str, list[Progress]], ends: dict[str, float], seeds: Sequence[int]) -> str:
    level, times = f"{LEVEL:.0%}", f"{ends['seconds']:g} s"
    head = ("steps in " + times, "seconds to " + level, "steps to " + level, "pointing after " + times)
    lines = [["estimator", *head, f"after {ends['steps']:g} steps"]]
    for name, runs in done.items():
        cells = [METHODS[name].title, f"{np.mean([run.at('steps', 'seconds', ends['seconds']) for run in runs]):.0f}"]
        cells += [_until(runs, along, digits) for along, digits in (("seconds", 2), ("steps", 0))]
        cells += [f"{_spread([100 * run.at('pointing', a, end) for run in runs], 1)}%" for a, end in ends.items()]
        lines.append(cells)
    text = markdown(lines)
    units = {"seconds": "seconds of processor time", "steps": "steps"}
    figure = [Curves(f"α at the true places, by {a}", _means(done, a, end), "%", units[a]) for a, end in ends.items()]
    count = min(map(len, done.values()))
    note = f"Mean of {count} seed{'s'[: count > 1]}; 32 scenes a step, measured on {UNSEEN} unseen ones."
    save_figure(curves_sheet(figure, title="Estimators of hard attention, trained", note=note), output / "curves.png")
    results = {
        **provenance(),
        "threads": torch.get_num_threads(),
        **ends,
        "seeds": list(seeds),
        "results": {n: [{k: np.round(v, 5).tolist() for k, v in r._asdict().items()} for r in done[n]] for n in done},
    }
    write_text(output / "curves.md", text + "\n")
    write_text(output / "curves.json", json.dumps(results, ensure_ascii=False))
    return text


def _until(runs: Sequence[Progress], along: str, digits: int) -> str:
    """When the level is reached, by the trainings that reach it, and how many do if not all."""
    found = [x for run in runs if np.isfinite(x := run.until(LEVEL, along))]
    some = "" if len(found) == len(runs) else f" ({len(found)} of {len(runs)})"
    return (_spread(found, digits) if found else "not reached") + some


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _means(done: dict[str, list[Progress]], along: str, end: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A line for each method: the mean pointing of its trainings, in percent."""
    x = np.linspace(0, end, 41)
    return {
        METHODS[n].title: (x, 100 * np.mean([r.at("pointing", along, x) for r in runs], 0)) for n, runs in done.items()
    }


def _check(output: Path, methods: Sequence[str]) -> None:
    for name in methods:
        require_choice("--methods", name, METHODS)
    require_empty(output)
    output.mkdir(parents=True, exist_ok=True)


def table(stage: str, share: float, rows: Sequence[dict]) -> str:
    """A decoder's measurements in Markdown; `share` is the weight of the true places."""
    lines = [list(_HEAD)]
    for row in rows:
        noisy = row["method"] != "enumeration"
        bias = f"{row['bias']:+.3f} ± {row['bias_error']:.3f}".replace("-", "−") if noisy else "0"
        variance, cost = (f"{row['variance'] * n:.3g}" if noisy else "0" for n in (1, row["passes"]))
        off, deviation = (f"{row['bias_norm']:.3f}", f"{row['deviation']:.1f}") if noisy else ("0", "0")
        cells = [bias, off, deviation, variance, str(row["passes"]), cost, f"{row['milliseconds']:.0f}"]
        lines.append([METHODS[row["method"]].title, *cells])
    return f"Decoder {stage}; α at the true places: {share:.2f}\n\n{markdown(lines)}"
