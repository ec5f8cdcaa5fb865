"""A report of all measurements of a model: numbers, tables and a figure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from visattn import __version__
from visattn.explain.faithfulness import blur_of
from visattn.figures import Faithfulness, faithfulness_sheet
from visattn.studies.faithfulness.ablation import own_and_ablated
from visattn.studies.faithfulness.curves import WAYS, follow_classes, follow_words, summary
from visattn.studies.faithfulness.setting import CENTRE, RANDOM, Example, Settings
from visattn.studies.markdown import markdown
from visattn.training.captioner import Captioner
from visattn.training.classifier import Classifier

WRITTEN = {"references": "references", "own": "own captions"}
WORD_UNIT = "log-probability of the word, nats"
NEEDED = math.log(2)  # minimum loss, in nats, of a word that "needs the image"


def report(
    model: Classifier | Captioner, examples: Sequence[Example], settings: Settings, limit: int | None = None
) -> dict[str, Any]:
    """All measurements, as stored in the file.

    Args:
        model: in evaluation mode.
        examples: the images.
        settings: of the measurements.
        limit: compute curves of only the first `limit` images; None uses all.
    """
    followed = examples[:limit]
    if isinstance(model, Classifier):
        measured, more = follow_classes(model, followed, settings), {}
        groups, unit = {"classes": np.ones(len(measured.targets), dtype=bool)}, "probability of the class"
    else:
        own, ablation = own_and_ablated(model, examples, settings)
        measured, more = follow_words(model, followed, own[:limit], settings), {"ablation": ablation}
        needed = np.array([target.needed for target in measured.targets]) >= NEEDED
        groups, unit = {"words that need the image": needed, "all words": np.ones_like(needed)}, WORD_UNIT
    kernel, sigma = blur_of(model.image_size)
    substrate = f"blur({kernel}, {sigma:.2f})" if settings.substrate == "blur" else settings.substrate
    signature = (
        f"RISE|units:{settings.units}|steps:{settings.steps}|deletion:grey|insertion:{substrate}|"
        f"input:{model.image_size[0]}x{model.image_size[1]}|precision:{settings.precision}|images:{len(followed)}|"
        f"seeds:{settings.seed}-{settings.seed + settings.seeds - 1}|visattn:{__version__}|torch:{torch.__version__}"
    )
    probability = isinstance(model, Classifier)
    return {
        "signature": signature,
        "settings": settings._asdict(),
        "unit": unit,
        "share": measured.share.tolist(),
        "groups": {name: summary(measured, group, probability) for name, group in groups.items() if group.any()},
        "targets": [(followed[target.image].id, target.name, float(target.needed)) for target in measured.targets],
        **more,
    }


def tables(found: dict[str, Any]) -> str:
    """All tables of a report, with headings."""
    parts = []
    for name, group in found["groups"].items():
        parts.append(
            f"{name}: {group['targets']} in {group['images']} images; area under the curve, mean {found['unit']}"
        )
        parts.append(curve_table(group))
    if "ablation" in found:
        ablation = found["ablation"]
        tokens = ", ".join(f"{n} of {WRITTEN[kind]}" for kind, n in ablation["tokens"].items() if n)
        parts.append(f"α ablated: {ablation['images']} images; tokens: {tokens}")
        parts.append(ablation_table(ablation["variants"]))
    return "\n\n".join([*parts, found["signature"]])


def curve_table(group: dict[str, Any]) -> str:
    """The areas of a group's maps, and their differences from the baselines."""
    titles = [f"{way} {arrow}" for way, arrow in zip(WAYS, "↓↑", strict=True)]
    lines = [["map", titles[0], "− random", "− centre", titles[1], "− random", "− centre"]]
    for name, ways in group["maps"].items():
        cells = [name]
        for way in WAYS:
            part = ways[way]
            deviation = f" ± {part['deviation']:.3f}" if "deviation" in part else ""
            cells.append(f"{part['area']:.3f}{deviation}")
            for other in (RANDOM, CENTRE):
                gap = part.get(f"minus {other}")
                cells.append(f"{gap['mean']:+.3f} ± {gap['error']:.3f}" if gap else "")
        lines.append([cell.replace("-", "−") for cell in cells])
    return markdown(lines)


def ablation_table(variants: dict[str, dict[str, Any]]) -> str:
    """The quality of captions with trained and ablated α."""
    titles = {f"{kind}_log_prob": f"{written}, nats per token" for kind, written in WRITTEN.items()} | {
        "CIDEr-D": "CIDEr-D, greedy",
        "captions_changed": "captions changed",
    }
    columns = [column for column in titles if column in variants["as trained"]]
    lines = [["", *(titles[column] for column in columns)]]
    for name, numbers in variants.items():
        deviation = numbers.get("deviation", {})
        cells = [name]
        for column in columns:
            form = "{:.0%}" if column == "captions_changed" else "{:.3f}"
            cell = form.format(numbers[column])
            cells.append(cell + (f" ± {form.format(deviation[column])}" if deviation else ""))
        lines.append([cell.replace("-", "−") for cell in cells])
    return markdown(lines)


def figure(found: dict[str, Any], title: str) -> Figure:
    """The figure of the report's first group."""
    name, group = next(iter(found["groups"].items()))
    kinds = {RANDOM: "random", CENTRE: "centre"}
    drawn = []
    for map_name, ways in group["maps"].items():
        parts = [ways[way] for way in WAYS]
        spread = np.array([part["spread"] for part in parts]) if map_name == RANDOM else None
        curves, areas = np.array([part["curve"] for part in parts]), tuple(part["area"] for part in parts)
        drawn.append(Faithfulness(map_name, curves, areas, kinds.get(map_name, "map"), spread))
    seeds, substrate = found["settings"]["seeds"], found["settings"]["substrate"]
    note = (
        f"{group['targets']} {name} in {group['images']} images. Deletion ends with grey, insertion begins with "
        f"{'a blurred image' if substrate == 'blur' else 'grey'}. Random: mean of {seeds} maps for each image; "
        "the band is their standard deviation."
    )
    return faithfulness_sheet(drawn, np.array(found["share"]), unit=found["unit"], title=title, note=note)
