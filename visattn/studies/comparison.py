"""Comparison of captioners that differ only in attention: steps, maps, a table; `visattn compare` trains them."""

import statistics
import time

import numpy as np
import torch

from visattn.data import ShapesCaptions
from visattn.data.batch import CaptionBatch
from visattn.data.captions import CaptionData, CaptionedImage
from visattn.figures import Comparison, Row
from visattn.images import Geometry
from visattn.images.reading import load_image
from visattn.studies.markdown import markdown
from visattn.training.captioner import Captioner
from visattn.training.regimes import TeacherForcing

SIDE = 320  # pixels of the generated scenes in the figure; the models see 64


def step_times(models: dict[str, Captioner], batch: CaptionBatch, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each decoder's training step, forward and backward, on its annotation vectors.

    The mechanisms alternate, so that other load on the machine affects all of them alike. After a minute no new round
    starts, except for the first three.
    """
    begun = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    times: dict[str, list[float]] = {name: [] for name in models}
    batch = CaptionBatch(*(part.to(device) if isinstance(part, torch.Tensor) else part for part in batch))
    for turn in range(rounds + 1):
        if turn > 3 and time.perf_counter() - begun > 60:
            break
        for name, model in models.items():
            with torch.no_grad():  # training mode would change the statistics of batch normalisation
                values, grid = model.to(device).eval().encode(batch)
            values.requires_grad_()
            model.decoder.train()
            model.loss.train()
            _wait(device)
            start = time.perf_counter()
            memory = model.decoder.prepare(values, grid)
            TeacherForcing().teach(model.decoder, memory, batch, model.loss, 0).loss.backward()
            _wait(device)
            if turn >= 1:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - start))
    for model in models.values():
        model.cpu().eval()
    return {name: statistics.median(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def original(data: CaptionData, example: CaptionedImage, model: Captioner) -> tuple[np.ndarray, Geometry]:
    """The original image, and its geometry."""
    if isinstance(data, ShapesCaptions):
        return np.asarray(data.scene(example.id).picture(SIDE)), model.input.geometry((SIDE, SIDE))
    picture = np.asarray(load_image(example.path))
    return picture, model.input.geometry(picture.shape[:2])


def compare_maps(models: dict[str, Captioner], data: CaptionData, split: str, count: int) -> list[Comparison]:
    """The maps of each model, by title, for the words of reference captions, on images with long captions."""
    examples = sorted(data.examples(split)[:24], key=lambda e: (-min(len(e.captions[0]), 12), e.id))[:count]
    images = torch.stack([data.load(example)[0] for example in examples])
    words = [example.captions[0][:12] for example in examples]
    label = next(iter(models.values())).vocabulary.tokens.label
    rows: list[list[Row]] = [[] for _ in examples]
    for title, model in models.items():
        for into, (own, *_), read in zip(rows, model.caption(images), model.read(images, words), strict=True):
            said = f"says: “{own.text}”"
            into.append(Row(title, said, read.weights, read.places))
    pictures = [original(data, example, next(iter(models.values()))) for example in examples]
    return [
        Comparison(picture, list(map(label, line)), geometry, row)
        for (picture, geometry), line, row in zip(pictures, words, rows, strict=True)
    ]


def table(results: dict[str, dict]) -> str:
    """The results as a Markdown table, without columns that are empty for all mechanisms.

    Args:
        results: by mechanism: `title`, `parameters`, `step` (relative time), `metrics` and, for several seeds, `sd`.
    """

    def cell(result: dict, metric: str, form: str) -> str:
        if metric not in result["metrics"]:
            return "–"
        sd = result.get("sd", {}).get(metric)
        return form.format(result["metrics"][metric]) + ("" if sd is None else f" ± {form.format(sd)}")

    def score(metric: str, form: str) -> list[str]:
        return [cell(result, metric, form) for result in results.values()]

    columns = {
        "mechanism": [r["title"] for r in results.values()],
        "CIDEr-D": score("CIDEr-D", "{:.2f}"),
        "BLEU-4": score("BLEU-4", "{:.3f}"),
        **{name: score(name, "{:.1%}") for name in ("true", "complete", "relation")},
        "pointing, own words": score("grounding_pointing", "{:.1%}"),
        "mass, own words": score("grounding_mass", "{:.1%}"),
        "pointing, references": score("ground_truth_grounding_pointing", "{:.1%}"),
        "mass, references": score("ground_truth_grounding_mass", "{:.1%}"),
        "entropy": score("attention_entropy", "{:.2f}"),
        "decoder's parameters": [f"{r['parameters']:,}" for r in results.values()],
        "time per step": [f"{r['step']:.2f}" for r in results.values()],
    }
    first = next(iter(results.values()))["metrics"]
    for control, title in (("uniform", "a place at random"), ("centre", "the centre")):
        for name in columns:
            kind, _, of = name.partition(", ")
            key = f"{'grounding' if of == 'own words' else 'ground_truth_grounding'}_{kind}_{control}"
            columns[name].append(title if name == "mechanism" else f"{first[key]:.1%}" if key in first else "")
    if not any("true" in r["metrics"] for r in results.values()):  # the content of the images is unknown
        columns = {name: cells for name, cells in columns.items() if name not in ("true", "complete", "relation")}
    columns = {name: cells for name, cells in columns.items() if set(cells[:-2]) != {"–"}}
    if not any(key.endswith("_centre") for key in first):  # the places of words are unknown
        columns = {name: cells[:-2] for name, cells in columns.items()}
    return markdown([list(columns), *zip(*columns.values(), strict=True)])


LEGEND = """\
Scores are of freely generated (greedy) captions. *True*: the share of captions without a false statement: everything
named exists, each phrase as a different thing, and the relation holds; *complete*: the share that are true and name
every thing. *Relation*: the share of relations between existing things that hold. *Pointing*: the share of words that
name a thing and have their largest weight on it; *mass*: the share of the weight that is on it; for the words of the
model's own captions, and for those of the references under teacher forcing. (Before a phrase begins, no model can know
which of several things a reference will name, so the latter cannot reach 100%.) *Entropy* of the weights, in nats.
*Time per step*: forward and backward pass of the decoder on one batch, as a multiple of the row "Soft" (of the
first row if there is none); medians of interleaved rounds. After ±: the standard deviation over seeds."""
