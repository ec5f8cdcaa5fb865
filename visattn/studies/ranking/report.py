"""The ranking as numbers, a table and a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from visattn import __version__
from visattn.figures import Ranked, ranking_sheet
from visattn.metrics import bootstrap_interval
from visattn.studies.markdown import markdown
from visattn.studies.ranking.measure import CENTRE, RANDOM, SCORES, Example, Measured, Settings

COLUMNS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "saco": "SaCo ↑",
    "pointing": "pointing ↑",
    "mass": "mass ↑",
    "randomised": "random ρ ↓",
}
CONTROLS = (RANDOM, CENTRE)


def report(measured: Measured, examples: Sequence[Example], class_names: Sequence[str], settings: Settings) -> dict:
    """What the JSON file holds: settings, each map's mean scores with intervals, and every image's scores.

    Maps are ordered by SaCo, the best first; a score that no image has is left out.
    """
    maps: dict[str, Any] = {}
    for name, scores in measured.scores.items():
        found = {score: bootstrap_interval(scores[score], seed=settings.seed) for score in SCORES}
        part: dict[str, Any] = {
            score: {"mean": mean, "low": low, "high": high, "images": int((~np.isnan(scores[score])).sum())}
            for score, (mean, low, high) in found.items()
            if not np.isnan(mean)
        }
        maps[name] = {"title": measured.titles.get(name, name), **part}
        if name in measured.cost:
            maps[name]["inferences"] = measured.cost[name]
    order = sorted(maps, key=lambda name: -maps[name]["saco"]["mean"])
    size = examples[0].image.shape[1:]
    signature = (
        f"rank|units:{settings.units}|steps:{settings.steps}|SaCo:K{settings.groups},mean colour|deletion:grey|"
        f"insertion:{settings.substrate}|input:{size[0]}x{size[1]}|images:{len(examples)}|"
        f"seeds:{settings.seed}-{settings.seed + settings.seeds - 1}|visattn:{__version__}|torch:{torch.__version__}"
    )
    return {
        "signature": signature,
        "settings": settings._asdict(),
        "maps": {name: maps[name] for name in order},
        "images": [
            {
                "id": example.id,
                "class": class_names[target],
                "probability": float(probability),
                "scores": {name: _finite(scores, n) for name, scores in measured.scores.items()},
            }
            for n, (example, target, probability) in enumerate(
                zip(examples, measured.targets, measured.probability, strict=True)
            )
        ],
    }


def _finite(scores: dict[str, np.ndarray], n: int) -> dict[str, float]:
    return {score: float(values[n]) for score, values in scores.items() if not np.isnan(values[n])}


def table(found: dict[str, Any]) -> str:
    """The ranking as Markdown: means with their 95% intervals."""
    columns = [score for score in COLUMNS if any(score in part for part in found["maps"].values())]
    lines = [["map", *(COLUMNS[score] for score in columns), "inferences"]]
    for part in found["maps"].values():
        cells = [part["title"]]
        for score in columns:
            cell = part.get(score)
            cells.append("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**cell).replace("-", "−") if cell else "")
        cells.append(f"{part['inferences']:.1f}" if "inferences" in part else "")
        lines.append(cells)
    scored = {
        score: max(part[score]["images"] for part in found["maps"].values() if score in part) for score in columns
    }
    outlined = f"; pointing and mass: {scored['pointing']} images with an outline" if "pointing" in scored else ""
    note = f"{len(found['images'])} images{outlined}; mean and 95% bootstrap interval over images; ordered by SaCo"
    return "\n\n".join([note, markdown(lines), found["signature"]])


def figure(found: dict[str, Any], title: str) -> Figure:
    """Means and intervals of all scores, a panel for each."""
    columns = {score: name for score, name in COLUMNS.items() if any(score in p for p in found["maps"].values())}
    rows = [
        Ranked(
            part["title"],
            tuple(
                (part[score]["mean"], part[score]["low"], part[score]["high"]) if score in part else None
                for score in columns
            ),
            name in CONTROLS,
        )
        for name, part in found["maps"].items()
    ]
    note = f"{len(found['images'])} images; mean and 95% bootstrap interval; grey: maps that have not seen the image."
    return ranking_sheet(rows, list(columns.values()), title=title, note=note)
