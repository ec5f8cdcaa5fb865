"""Compare gradient estimators of hard attention with the exact gradient; see `visattn estimators --help`."""

import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from visattn import __version__
from visattn.errors import InputError
from visattn.figures import Estimates, estimates_sheet
from visattn.files import write_text
from visattn.overlay import save_figure
from visattn.studies.estimators import METHODS, half_trained, make_decoder, make_scenes, measure, pointing

_HEAD = (
    "| estimator | bias ± s.e. | off | deviation | variance | passes | variance × passes | ms |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)


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
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"--methods has '{unknown[0]}'; choose from {', '.join(METHODS)}")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; remove it, or choose another with --output")
    output.mkdir(parents=True, exist_ok=True)
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
        "date": date.today().isoformat(),
        "versions": {"visattn": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "draws": draws,
        "scenes": scenes,
        "warmup": warmup,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - start, 1),
        "stages": [{"stage": stage, "pointing": shares[stage], "results": rows} for stage, rows in measured.items()],
    }
    write_text(output / "estimators.md", text + "\n")
    write_text(output / "results.json", json.dumps(results, ensure_ascii=False, indent=1))
    return text


def table(stage: str, share: float, rows: Sequence[dict]) -> str:
    """A decoder's measurements in Markdown; `share` is the weight of the true places."""
    lines = [f"Decoder {stage}; α at the true places: {share:.2f}", "", *_HEAD]
    for row in rows:
        noisy = row["method"] != "enumeration"
        bias = f"{row['bias']:+.3f} ± {row['bias_error']:.3f}".replace("-", "−") if noisy else "0"
        variance, cost = (f"{row['variance'] * n:.3g}" if noisy else "0" for n in (1, row["passes"]))
        off, deviation = (f"{row['bias_norm']:.3f}", f"{row['deviation']:.1f}") if noisy else ("0", "0")
        cells = [METHODS[row["method"]].title, bias, off, deviation, variance, str(row["passes"]), cost]
        lines.append(f"| {' | '.join(cells)} | {row['milliseconds']:.0f} |")
    return "\n".join(lines)
