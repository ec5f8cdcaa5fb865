"""Scores of each map of each image."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from visattn.explain import METHODS, Subject, ViT
from visattn.explain.faithfulness import Groups, Score, Units, Walk, area, centre_map, inserted_over, random_map
from visattn.explain.methods import Method
from visattn.explain.randomisation import shuffled
from visattn.images import Geometry
from visattn.metrics import grounding, rank_correlation, saco
from visattn.metrics.grounding import POINTING_TOLERANCE
from visattn.models.mode import evaluating
from visattn.studies.faithfulness.setting import CENTRE, RANDOM

SCORES = ("deletion", "insertion", "saco", "pointing", "mass", "randomised")


class Example(NamedTuple):
    """An image to explain.

    Attributes:
        id: its name.
        image: (3, h, w) uint8, the model's input.
        outline: from a class to where it is in the input, (h, w) bool; None where that is not known, or nowhere.
    """

    id: str
    image: Tensor
    outline: Callable[[str], np.ndarray | None] = lambda name: None


class Settings(NamedTuple):
    """How maps are scored.

    Attributes:
        methods: names of the maps.
        units: that are taken away, "pixels" or "cells".
        steps: of deletion and insertion.
        groups: K of SaCo.
        substrate: that insertion begins with, "blur" or "grey".
        seeds: how many random maps for each image.
        seed: of the first, of the shuffled weights and of the bootstrap.
        batch_size: images that the model sees at once.
    """

    methods: tuple[str, ...]
    units: Units = "pixels"
    steps: int = 16
    groups: int = 10
    substrate: str = "blur"
    seeds: int = 5
    seed: int = 0
    batch_size: int = 32


class Measured(NamedTuple):
    """All scores.

    Attributes:
        titles: of the methods, by name.
        targets: (M,) the class explained in each image.
        probability: (M,) that the model gives it.
        scores: by map and score, (M,); NaN where an image has none. Of random maps the mean over the seeds.
        cost: by method, that of a map as a multiple of a plain inference's.
    """

    titles: dict[str, str]
    targets: list[int]
    probability: np.ndarray
    scores: dict[str, dict[str, np.ndarray]]
    cost: dict[str, float]


def _maps(methods: Mapping[str, Method], vit: ViT, pixels: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    return {name: method(vit, pixels, targets).float().cpu().numpy() for name, method in methods.items()}


@torch.no_grad()
def measure(subject: Subject, examples: Sequence[Example], settings: Settings) -> Measured:
    """Score the maps of the class that the model predicts for each image."""
    methods = {name: METHODS[name]() for name in settings.methods}
    judge = _Judge(subject, examples[0].image, settings)
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in (*methods, RANDOM, CENTRE)}
    targets: list[int] = []
    probability: list[float] = []
    cost: dict[str, float] = {}
    bar = tqdm(total=len(examples), desc="Scoring maps", unit="image")
    for start in range(0, len(examples), settings.batch_size):
        batch = examples[start : start + settings.batch_size]
        pixels = subject.normalise(torch.stack([example.image for example in batch]).to(subject.device))
        with evaluating(subject.vit.model):
            likely = subject.vit.logits(pixels).float().softmax(dim=-1).max(dim=-1)
        maps = _maps(methods, subject.vit, pixels, likely.indices)
        with shuffled(subject.vit, settings.seed):
            random_weights = _maps(methods, subject.vit, pixels, likely.indices)
        cost = cost or costs(subject, methods, pixels[:8], likely.indices[:8])
        for n, example in enumerate(batch):
            label = int(likely.indices[n])
            targets.append(label)
            probability.append(float(likely.values[n]))
            own = {name: maps[name][n] for name in methods}
            found = judge.all_scores(
                example, label, own, {name: random_weights[name][n] for name in methods}, start + n
            )
            for name, part in found.items():
                scores[name].append(part)
            bar.update()
    bar.close()
    gathered = {
        name: {score: np.array([part.get(score, np.nan) for part in parts]) for score in SCORES}
        for name, parts in scores.items()
    }
    titles = {name: str(method) for name, method in methods.items()}
    return Measured(titles, targets, np.array(probability), gathered, cost)


def costs(subject: Subject, methods: Mapping[str, Callable], pixels: Tensor, targets: Tensor) -> dict[str, float]:
    """Cost of each method as a multiple of a plain inference's, on the same images: the median of three rounds.

    On a CPU it is processor time that counts, since other programs take turns with this one. All have run before.
    """
    clock = time.process_time if pixels.device.type == "cpu" else time.perf_counter

    def seconds(run: Callable[[], object]) -> float:
        start = clock()
        run()
        if pixels.is_cuda:
            torch.cuda.synchronize()
        return clock() - start

    runs: list[Callable[[], object]] = [lambda: subject.vit.logits(pixels)]
    runs += [partial(method, subject.vit, pixels, targets) for method in methods.values()]
    with evaluating(subject.vit.model):
        times = np.array([[seconds(run) for run in runs] for _ in range(3)])
    return dict(zip(methods, np.median(times[:, 1:] / times[:, :1], axis=0).tolist(), strict=True))


class _Judge:
    """Scores one image's maps."""

    def __init__(self, subject: Subject, image: Tensor, settings: Settings) -> None:
        size = (image.shape[1], image.shape[2])
        self.subject, self.settings = subject, settings
        self.grid = subject.vit.grid(size)
        self.geometry = Geometry.identity(size)._replace(cell_shift=subject.vit.cells(size))
        self.walk = Walk(self.geometry, settings.units, settings.steps, settings.batch_size)
        self.share = self.walk.share(self.grid)
        mean = getattr(subject.normalise, "mean", torch.full((3, 1, 1), 0.5))
        self.blank = 255 * mean.to(subject.device)  # 0 in normalised space

    def all_scores(
        self,
        example: Example,
        label: int,
        maps: Mapping[str, np.ndarray],
        of_random_weights: Mapping[str, np.ndarray],
        number: int,
    ) -> dict[str, dict[str, float]]:
        """By map, its scores; the image's number seeds its random maps."""
        settings, subject = self.settings, self.subject
        pixels = example.image.to(subject.device, torch.float32)
        substrate = inserted_over(pixels, self.blank, settings.substrate)
        mask = example.outline(subject.class_names[label])

        def score(images: Tensor) -> Tensor:
            with evaluating(subject.vit.model):
                logits = subject.vit.logits(subject.normalise(images))
            return logits.double().log_softmax(dim=-1)[:, label : label + 1]

        whole = float(score(pixels[None]).exp())

        def scores(weights: np.ndarray) -> dict[str, float]:
            curves = self.walk.curves(score, pixels, self.blank, substrate, weights[None])
            deletion, insertion = area(np.exp(curves[:, 0].astype(float)), self.share)
            found = {"deletion": float(deletion), "insertion": float(insertion)}
            found["saco"] = self._saco(score, pixels, weights, whole)
            return found | self._grounding(weights, mask)

        found = {
            name: scores(weights) | {"randomised": rank_correlation(weights, of_random_weights[name])}
            for name, weights in maps.items()
        }
        seeds = [(settings.seed + n, number) for n in range(settings.seeds)]
        drawn = [scores(random_map(self.grid, seed)) for seed in seeds]
        found[RANDOM] = {name: float(np.mean([part[name] for part in drawn])) for name in drawn[0]}
        centre = centre_map(self.grid, self.geometry)
        found[CENTRE] = scores(centre - centre.min())
        return found

    def _saco(self, score: Score, pixels: Tensor, weights: np.ndarray, whole: float) -> float:
        groups = Groups.of(weights, self.geometry, self.settings.groups, self.settings.units)
        drops = whole - groups.without(score, pixels, self.settings.batch_size)[:, 0].double().exp().cpu().numpy()
        return saco(groups.salience, drops)

    def _grounding(self, weights: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
        """Pointing and mass, of what speaks for the class; a map without such values is taken as flat."""
        if mask is None or not mask.any():
            return {}
        positive = weights.clip(min=0)
        positive = positive if positive.sum() > 0 else np.ones_like(positive)
        tolerance = POINTING_TOLERANCE * min(self.geometry.input)
        found = grounding([positive], [mask], tolerance, self.geometry.cell_shift)
        return {"pointing": found.pointing, "mass": found.mass}
