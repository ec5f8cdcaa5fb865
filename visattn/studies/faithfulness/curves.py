"""Deletion and insertion curves for a model's maps and for baseline maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from visattn.explain import GradientRollout, Raw, Relevance, Rollout
from visattn.explain.faithfulness import Score, Walk, area, centre_map, difference, inserted_over, random_map
from visattn.studies.faithfulness.captions import OwnCaption, of_tokens
from visattn.studies.faithfulness.setting import CENTRE, RANDOM, Example, Settings
from visattn.training.captioner import Captioner
from visattn.training.classifier import Classifier

WAYS = ("deletion", "insertion")
BAR = {"desc": "Deleting and inserting", "unit": "image"}

CLASS_METHODS = {
    "raw": Raw(),
    "rollout": Rollout(),
    "gradient-rollout": GradientRollout(),
    "relevance": Relevance(),
}


class Target(NamedTuple):
    """A class or a word whose probability is measured.

    Attributes:
        image: index of its image.
        name: the class or the word.
        needed: its loss of log-probability, in nats, between the image and a grey one.
    """

    image: int
    name: str
    needed: float


class Measured(NamedTuple):
    """All curves.

    Attributes:
        targets: M targets.
        curves: by map, (2, M, K + 1) log-probabilities; of the random maps (seeds, 2, M, K + 1).
        share: (K + 1,) share of the image deleted or inserted at each step.
    """

    targets: list[Target]
    curves: dict[str, np.ndarray]
    share: np.ndarray


def follow_classes(model: Classifier, examples: Sequence[Example], settings: Settings) -> Measured:
    """The curves of the predicted classes, for a classifier's maps of these classes."""
    subject = model.subject()
    methods = {str(method): method for method in (CLASS_METHODS[name] for name in settings.methods)}
    gathered = _Gathered(model, model.normalise.mean, settings)
    for example in tqdm(examples, **BAR):
        images = example.image.unsqueeze(0).to(model.device)
        label = subject.probabilities(images).argmax(dim=-1)
        maps = {
            name: method(subject.vit, subject.normalise(images), label).float().cpu().numpy()
            for name, method in methods.items()
        }

        def score(images: Tensor, label: Tensor = label) -> Tensor:
            return model(images).float().log_softmax(dim=-1)[:, label]

        gathered.add(example.image, score, [model.class_names[label]], maps)
    return gathered.measured()


def follow_words(
    model: Captioner, examples: Sequence[Example], own: Sequence[OwnCaption], settings: Settings
) -> Measured:
    """The curves of the words of a captioner's own captions, for the maps of each word."""
    gathered = _Gathered(model, model.encoder.normalise.mean, settings)
    for example, (tokens, maps) in zip(tqdm(examples, **BAR), own, strict=True):
        words = model.vocabulary.decode(tokens.tolist())
        heard, said = tokens[: len(words)], tokens[1 : len(words) + 1]

        def score(images: Tensor, heard: Tensor = heard, said: Tensor = said) -> Tensor:
            memory = model.decoder.prepare(*model.encoder(images))
            logits, _ = model.decoder(memory, heard.expand(len(images), -1))
            return of_tokens(logits, said.expand(len(images), -1))

        gathered.add(example.image, score, words, maps)
    return gathered.measured()


class _Gathered:
    """Curves for a model's maps and for baseline maps, collected image by image."""

    def __init__(self, model: Classifier | Captioner, mean: Tensor, settings: Settings) -> None:
        self.walk = Walk(model.input.identity(), settings.units, settings.steps, settings.batch_size)
        self.device, self.settings = model.device, settings
        self.blank = 255 * mean  # 0 in normalised space
        self.targets: list[Target] = []
        self.curves: dict[str, list[np.ndarray]] = {}
        self.images = 0
        self.grid: tuple[int, int] = (0, 0)

    def add(self, image: Tensor, score: Score, names: list[str], maps: Mapping[str, np.ndarray]) -> None:
        """Add the curves of an image's targets; maps are (1, H, W) for all of them, or one for each."""
        pixels = image.to(self.device, torch.float32)
        substrate = inserted_over(pixels, self.blank, self.settings.substrate)
        self.grid = next(iter(maps.values())).shape[-2:]

        def curves(by: np.ndarray) -> np.ndarray:
            return self.walk.curves(score, pixels, self.blank, substrate, by)

        seeds = [(self.settings.seed + n, self.images) for n in range(self.settings.seeds)]
        found = {name: curves(by) for name, by in maps.items()}
        found[RANDOM] = np.stack([curves(random_map(self.grid, seed)[None]) for seed in seeds])
        found[CENTRE] = curves(centre_map(self.grid, self.walk.geometry)[None])
        for name, part in found.items():
            self.curves.setdefault(name, []).append(part)
        ends = found[CENTRE][0]
        self.targets += [Target(self.images, *t) for t in zip(names, ends[:, 0] - ends[:, -1], strict=True)]
        self.images += 1

    def measured(self) -> Measured:
        """The collected curves."""
        joined = {name: np.concatenate(parts, axis=-2) for name, parts in self.curves.items()}
        return Measured(self.targets, joined, self.walk.share(self.grid))


def summary(measured: Measured, chosen: np.ndarray, probability: bool) -> dict[str, Any]:
    """Summary of the chosen targets (M,), as stored in the file.

    For each map: `curve`, the mean over the targets; `area` under it; and for a model's map the difference of its area
    from those of the baselines, over the images. For the random maps `curve` and `area` are means over the seeds, and
    `spread` and `deviation` their standard deviations over the seeds.
    """
    image = np.array([target.image for target in measured.targets])[chosen]
    curves = {name: np.exp(c) if probability else c for name, c in measured.curves.items()}
    curves = {name: curve[..., chosen, :].astype(np.float64) for name, curve in curves.items()}
    areas = {name: area(curve, measured.share) for name, curve in curves.items()}
    areas[RANDOM], random = areas[RANDOM].mean(axis=0), areas[RANDOM]
    out: dict[str, Any] = {}
    for name, curve in curves.items():
        for n, way in enumerate(WAYS):
            part: dict[str, Any] = {"area": float(areas[name][n].mean())}
            if name == RANDOM:
                of_seeds = curve[:, n].mean(axis=1)  # (seeds, K + 1)
                several = int(len(of_seeds) > 1)
                part["deviation"] = float(random[:, n].mean(axis=1).std(ddof=several))
                part["curve"] = of_seeds.mean(axis=0).tolist()
                part["spread"] = of_seeds.std(axis=0, ddof=several).tolist()
            else:
                part["curve"] = curve[n].mean(axis=0).tolist()
            others = (RANDOM, CENTRE) if name not in (RANDOM, CENTRE) else (RANDOM,) if name == CENTRE else ()
            for other in others:
                part[f"minus {other}"] = difference(areas[name][n], areas[other][n], image)._asdict()
            out.setdefault(name, {})[way] = part
    return {"targets": int(chosen.sum()), "images": len(np.unique(image)), "maps": out}
