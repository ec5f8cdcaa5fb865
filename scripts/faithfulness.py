r"""Does the attention map matter? Deletion and insertion by it, beside maps that know nothing; captions without it.

    uv run scripts/faithfulness.py --checkpoint runs/cifar10_vit/best.ckpt --output runs/faithful photo.jpg folder/
    uv run scripts/faithfulness.py --checkpoint runs/shapes_captioner/best.ckpt --output runs/faithful --data shapes
    uv run scripts/faithfulness.py --checkpoint runs/flickr8k_soft/best.ckpt --output runs/faithful --data photographs \
        --root data/flickr8k --annotations dataset_flickr8k.json --split val

**Curves** (RISE; see `visattn/explain/faithfulness.py`). The image is taken away in the order of a map, down to the
grey that is 0 in normalised space, and brought in over a blurred image. Of a classifier: the probability of the class
that it gives the whole image, by its attention, rollout, gradient rollout and relevance. Of a captioner: the
log-probability, in nats, of each word of its greedy caption after the caption's own words before it, by that word's α
and by its relevance; for all words, and for those that need the image, which of the grey picture are at most half as
likely. Beside them random maps and the distance to the centre.

**Ablation**, of a captioner: α of every word replaced by the uniform one, or moved to other places by a permutation
(`visattn/attention/ablated.py`): the log-probability of references and of the model's own captions, in nats per token
with the end counted, and CIDEr-D of greedy captions against the references, on the data's own tokens.

Writes to the output folder `faithfulness.png`, the tables (`faithfulness.md`) and all numbers (`faithfulness.json`).
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from visattn import __version__
from visattn.attention import Memory, ShuffledWeights, UniformWeights, ablated
from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.classifier import Classifier
from visattn.data import CIFAR10, CIFAR100, CaptionBatch, CaptionData, Photographs, ShapesCaptions, ShapesClasses
from visattn.data.images import list_images, read_inputs
from visattn.decoding import Decoded, Greedy, captions, decode
from visattn.errors import InputError
from visattn.explain import GradientRollout, Raw, Relevance, Rollout, word_relevance
from visattn.explain.faithfulness import Score, Units, Walk, area, blur_of, blurred, centre_map, difference, random_map
from visattn.files import write_text
from visattn.geometry import Geometry
from visattn.metrics import caption_scores
from visattn.models import Decoder
from visattn.overlay import Faithfulness, faithfulness_sheet, save_figure
from visattn.program import program
from visattn.regimes import rows
from visattn.vocabulary import END, PAD, START

SUBSTRATES = ("blur", "grey")
WAYS = ("deletion", "insertion")
BAR = {"desc": "Deleting and inserting", "unit": "image"}
RANDOM, CENTRE = "random maps", "distance to the centre"
WRITTEN = {"references": "references", "own": "own captions"}
WORD_UNIT = "log-probability of the word, nats"
NEEDED = math.log(2)  # nats that a word loses where it "needs the image"


CLASS_METHODS = {
    "raw": Raw(),
    "rollout": Rollout(),
    "gradient-rollout": GradientRollout(),
    "relevance": Relevance(),
}
WORD_METHODS = {
    "attention": lambda decoder, memory, heard, decoded: decoded.weights,
    "relevance": lambda decoder, memory, heard, decoded: word_relevance(decoder, memory, heard[:, :-1], decoded.tokens),
}


class Example(NamedTuple):
    """An image to look at.

    Attributes:
        id: its name.
        image: (3, h, w) uint8 of the model's input size.
        references: tokenised captions; none where nobody wrote any.
    """

    id: str
    image: Tensor
    references: list[list[str]]


class Settings(NamedTuple):
    """How it is measured.

    Attributes:
        methods: names of the maps.
        units: that are taken, "pixels" or "cells".
        steps: of a curve.
        substrate: that insertion begins with.
        seeds: how many random maps for each image, and how many shuffles of α.
        seed: of the first.
        batch_size: images that the model sees at once.
        precision: "32", or "bf16" for mixed precision, which some CPUs compute several times faster.
    """

    methods: tuple[str, ...]
    units: Units = "pixels"
    steps: int = 32
    substrate: str = "blur"
    seeds: int = 5
    seed: int = 0
    batch_size: int = 32
    precision: str = "32"

    def check(self) -> None:
        """Raise an `InputError` where a number is too small."""
        for name in ("steps", "seeds", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


class Target(NamedTuple):
    """A class or a word whose probability is followed.

    Attributes:
        image: the number of its image.
        name: the class or the word.
        needed: nats that it loses between the image and the grey picture.
    """

    image: int
    name: str
    needed: float


class Measured(NamedTuple):
    """All curves.

    Attributes:
        targets: M of them.
        curves: by map, (2, M, K + 1) log-probabilities; of the random maps (seeds, 2, M, K + 1).
        share: (K + 1,) of the image that is taken at each step.
    """

    targets: list[Target]
    curves: dict[str, np.ndarray]
    share: np.ndarray


# -------------------------------------------------------------------------------------------------------------- curves


def follow_classes(model: Classifier, examples: Sequence[Example], settings: Settings) -> Measured:
    """The curves of the classes that a classifier gives its images, by its maps for these classes."""
    subject = model.subject()
    methods = {str(method): method for method in (CLASS_METHODS[name] for name in settings.methods)}
    gathered = _Gathered(model, model.normalise.mean, (0.0, 0.0), settings)
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


class OwnCaption(NamedTuple):
    """What a captioner says of an image by itself; T words.

    Attributes:
        tokens: START, the words, and END where it ended.
        maps: by method, (T, H, W) of the words.
    """

    tokens: Tensor
    maps: dict[str, np.ndarray]


def follow_words(
    model: Captioner, examples: Sequence[Example], own: Sequence[OwnCaption], settings: Settings
) -> Measured:
    """The curves of the words of a captioner's own captions, each by its own maps."""
    gathered = _Gathered(model, model.encoder.normalise.mean, model.cell_shift, settings)
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
    """Curves by a model's maps and by the controls, image by image."""

    def __init__(
        self, model: Classifier | Captioner, mean: Tensor, cell_shift: tuple[float, float], settings: Settings
    ) -> None:
        geometry = Geometry.identity(model.image_size)._replace(cell_shift=cell_shift)
        self.walk = Walk(geometry, settings.units, settings.steps, settings.batch_size)
        self.device, self.settings = model.device, settings
        self.blank = 255 * mean  # 0 in normalised space
        self.targets: list[Target] = []
        self.curves: dict[str, list[np.ndarray]] = {}
        self.images = 0
        self.grid: tuple[int, int] = (0, 0)

    def add(self, image: Tensor, score: Score, names: list[str], maps: Mapping[str, np.ndarray]) -> None:
        """The curves of an image's targets; maps (1, H, W) for all of them, or one for each."""
        pixels = image.to(self.device, torch.float32)
        substrate = blurred(pixels, self.blank) if self.settings.substrate == "blur" else self.blank.expand_as(pixels)
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
        """What was gathered."""
        joined = {name: np.concatenate(parts, axis=-2) for name, parts in self.curves.items()}
        return Measured(self.targets, joined, self.walk.share(self.grid))


def summary(measured: Measured, chosen: np.ndarray, probability: bool) -> dict[str, Any]:
    """The numbers of the targets (M,) that are chosen, as the file holds them.

    Of every map `curve`, the mean over the targets; `area` under it; and of a model's map how much larger its area is
    than the controls', over the images. Of the random maps `curve` and `area` are means over the seeds, `deviation` and
    `spread` the standard deviations over them, of the area and of the curve.
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


# ------------------------------------------------------------------------------------------------------------ ablation


def log_probabilities(decoder: Decoder, memory: Memory, batch: CaptionBatch) -> Tensor:
    """(N,) of whole captions, each token after the true ones before it, END included."""
    memory, tokens = rows(memory, batch)
    logits, _ = decoder(memory, tokens[:, :-1])
    return of_tokens(logits, tokens[:, 1:]).masked_fill(tokens[:, 1:] == PAD, 0).sum(dim=1)


def of_tokens(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities (N, T) of tokens (N, T), among all, from logits (N, T, V)."""
    return logits.float().log_softmax(dim=-1).gather(2, tokens.unsqueeze(2)).squeeze(2)


class _Variant:
    """A captioner with its α changed, or not: what its captions are worth."""

    def __init__(self, name: str, change: Callable[[], AbstractContextManager[None]]) -> None:
        self.name, self.change = name, change
        self.log_probs: dict[str, list[float]] = {"references": [], "own": []}
        self.generated: dict[str, list[str]] = {}

    def numbers(self, tokens: Mapping[str, int], references: Mapping[str, list[list[str]]]) -> dict[str, float]:
        out = {f"{kind}_log_prob": sum(p) / tokens[kind] for kind, p in self.log_probs.items() if tokens[kind]}
        if references:
            out["CIDEr-D"] = caption_scores(references, self.generated).corpus["CIDEr-D"]
        return out


@torch.inference_mode()
def own_and_ablated(
    model: Captioner, examples: Sequence[Example], settings: Settings
) -> tuple[list[OwnCaption], dict[str, Any]]:
    """A captioner's own captions; and how it does without its α.

    Returns:
        A caption for each image; and the numbers by variant: `as trained`, `uniform α` and `shuffled α`, the last as
        means over the seeds, with their `deviation`.
    """
    uniform = UniformWeights()
    variants = [_Variant("as trained", nullcontext), _Variant("uniform α", lambda: ablated(model.decoder, uniform))]
    for seed in range(settings.seed, settings.seed + settings.seeds):
        shuffle = ShuffledWeights(seed)  # goes on from batch to batch
        variants.append(_Variant("shuffled α", lambda shuffle=shuffle: ablated(model.decoder, shuffle)))
    own: list[OwnCaption] = []
    counts = {"references": 0, "own": 0}
    for start in tqdm(range(0, len(examples), settings.batch_size), desc="Ablating", unit="batch"):
        batch = examples[start : start + settings.batch_size]
        memory = model.decoder.prepare(*model.encoder(torch.stack([e.image for e in batch]).to(model.device)))
        names = [example.id for example in batch]
        decoded = decode(model.decoder, memory, Greedy(), model.max_length)
        own += own_captions(model, memory, decoded, settings.methods)
        texts = {"own": _captions(names, [[caption.tokens] for caption in own[-len(batch) :]], model.device)}
        if all(example.references for example in batch):
            lines = [[torch.tensor(model.vocabulary.encode(r)) for r in example.references] for example in batch]
            texts["references"] = _captions(names, lines, model.device)
        for kind, text in texts.items():
            counts[kind] += int((text.tokens[:, 1:] != PAD).sum())
        for variant in variants:
            with variant.change():
                again = decode(model.decoder, memory, Greedy(), model.max_length)
                for kind, text in texts.items():
                    variant.log_probs[kind] += log_probabilities(model.decoder, memory, text).tolist()
            said = captions(again, model.vocabulary, memory.grid)
            variant.generated |= {name: caption.words for name, caption in zip(names, said, strict=True)}
    references = {example.id: example.references for example in examples if example.references}
    found: dict[str, list[dict[str, float]]] = {}
    for variant in variants:
        numbers = variant.numbers(counts, references)
        numbers["captions_changed"] = float(
            np.mean([variant.generated[name] != words for name, words in variants[0].generated.items()])
        )
        found.setdefault(variant.name, []).append(numbers)
    return own, {
        "images": len(examples),
        "tokens": counts,
        "variants": {name: _over_seeds(numbers) for name, numbers in found.items()},
    }


def own_captions(model: Captioner, memory: Memory, decoded: Decoded, methods: Sequence[str]) -> list[OwnCaption]:
    """Generated captions, one of each image of the memory, with the maps of their words."""
    heard = torch.cat([torch.full_like(decoded.tokens[:, :1], START), decoded.tokens], dim=1)
    maps = {name: WORD_METHODS[name](model.decoder, memory, heard, decoded) for name in methods}
    maps = {name: part.float().unflatten(2, memory.grid).cpu().numpy() for name, part in maps.items()}
    return [
        OwnCaption(tokens[tokens != PAD], {name: part[n, : int((tokens > END).sum())] for name, part in maps.items()})
        for n, tokens in enumerate(heard)
    ]


def _captions(names: list[str], lines: list[list[Tensor]], device: torch.device) -> CaptionBatch:
    """Captions of images, several of each, as a batch without the images."""
    owner = torch.tensor([n for n, several in enumerate(lines) for _ in several], device=device)
    tokens = pad_sequence([line for several in lines for line in several], batch_first=True, padding_value=PAD)
    return CaptionBatch(None, None, owner, tokens.to(device), names)


def _over_seeds(numbers: list[dict[str, float]]) -> dict[str, Any]:
    mean = {key: float(np.mean([part[key] for part in numbers])) for key in numbers[0]}
    if len(numbers) == 1:
        return mean
    return mean | {"deviation": {key: float(np.std([part[key] for part in numbers], ddof=1)) for key in mean}}


# --------------------------------------------------------------------------------------------------------------- input


def read_examples(model: Classifier | Captioner, options: argparse.Namespace) -> list[Example]:
    """The images that the options name.

    Raises:
        InputError: where they name none, or options do not belong together.
    """
    if bool(options.images) == bool(options.data):
        raise InputError("name images or folders, or a data set with --data, one of both")
    needs = {"photographs": ("root", "annotations"), "cifar10": ("root",), "cifar100": ("root",)}.get(options.data, ())
    for name in ("root", "annotations"):
        given = getattr(options, name) is not None
        if given != (name in needs):
            kind = f"--data {options.data}" if options.data else "images"
            raise InputError(f"{kind} {'cannot take' if given else 'needs'} --{name}")
    for name in ("limit", "curves"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if not options.data:
        paths = list_images(options.images)[: options.limit]
        return [Example(item.name, item.tensor, []) for item in read_inputs(paths, model.image_size, model.fit)]
    data = _data(model, options)
    if isinstance(data, CaptionData):
        found = next((e for split in _splits(options) if (e := data.examples(split))), None)
        if not found:
            raise InputError(f"{data.describe()} has no {options.split} split")
        return [Example(e.id, data.load(e)[0], e.captions) for e in found[: options.limit]]
    split = _splits(options)[0]
    images, names = data.tensors(split)[0][: options.limit], data.ids(split)
    return [Example(name, image, []) for name, image in zip(names, images, strict=False)]


def choose_methods(model: Classifier | Captioner, asked: list[str] | None) -> tuple[str, ...]:
    """The maps that were asked for, or all that there are of such a model.

    Raises:
        InputError: where there is no such map of it.
    """
    known = CLASS_METHODS if isinstance(model, Classifier) else WORD_METHODS
    for name in asked or ():
        if name not in known:
            kind = "classifier" if isinstance(model, Classifier) else "captioner"
            raise InputError(f"--method {name} is not for a {kind}, which has {', '.join(known)}")
    return tuple(dict.fromkeys(asked or known))


def _splits(options: argparse.Namespace) -> list[str]:
    return [options.split] if options.split else ["test", "val"]


def _data(model: Classifier | Captioner, options: argparse.Namespace) -> Any:
    """The data module that `--data` names."""
    captioner = isinstance(model, Captioner)
    if captioner != (options.data == "photographs") and options.data != "shapes":
        raise InputError(f"--data {options.data} is not for a {'captioner' if captioner else 'classifier'}")
    if options.data == "shapes":
        return (ShapesCaptions if captioner else ShapesClasses)(image_size=model.image_size)
    if options.data == "photographs":
        more = {"image_size": model.image_size, "fit": model.fit, "limit": options.limit}
        return Photographs(options.root, options.annotations, options.pictures, **more)
    data = {"cifar10": CIFAR10, "cifar100": CIFAR100}[options.data](options.root, download=False)
    if data.image_size != model.image_size:
        sizes = ["{1}×{0}".format(*size) for size in (data.image_size, model.image_size)]
        raise InputError(f"--data {options.data} has images of {sizes[0]} pixels, and this model takes {sizes[1]}")
    return data


# -------------------------------------------------------------------------------------------------------------- output


def report(
    model: Classifier | Captioner, examples: Sequence[Example], settings: Settings, limit: int | None = None
) -> dict[str, Any]:
    """All that is measured; what the file holds.

    Args:
        model: in evaluation mode.
        examples: the images.
        settings: how.
        limit: the curves are of so many images, the first; None takes all.
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


def table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first the titles, as Markdown."""
    out = ["| " + " | ".join(lines[0]) + " |", "|---" + "|---:" * (len(lines[0]) - 1) + "|"]
    return "\n".join([*out, *("| " + " | ".join(line) + " |" for line in lines[1:])])


def curve_table(group: dict[str, Any]) -> str:
    """The areas of a group's maps, and how much larger they are than the controls'."""
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
    return table(lines)


def ablation_table(variants: dict[str, dict[str, Any]]) -> str:
    """What captions are worth with α and without."""
    titles = {f"{kind}_log_prob": f"{written}, nats per token" for kind, written in WRITTEN.items()} | {
        "CIDEr-D": "CIDEr-D, greedy",
        "captions_changed": "captions that change",
    }
    columns = [column for column in titles if column in variants["as trained"]]
    lines = [["", *(titles[column] for column in columns)]]
    for name, numbers in variants.items():
        deviation = numbers.get("deviation", {})
        cells = [name]
        for column in columns:
            form = "{:.0%}" if column == "captions_changed" else "{:.3f}"
            cell = form.format(numbers[column]).replace("%", " %")
            cells.append(cell + (f" ± {form.format(deviation[column])}".replace("%", " %") if deviation else ""))
        lines.append([cell.replace("-", "−") for cell in cells])
    return table(lines)


def tables(found: dict[str, Any]) -> str:
    """All tables of a report, with what they are of."""
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


def figure_of(found: dict[str, Any], title: str) -> Any:
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
        f"{group['targets']} {name} in {group['images']} images. Deletion goes to grey, insertion begins with "
        f"{'a blurred image' if substrate == 'blur' else 'grey'}. Random: mean of {seeds} maps for each image; "
        "the band is the standard deviation over them."
    )
    return faithfulness_sheet(drawn, np.array(found["share"]), unit=found["unit"], title=title, note=note)


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a model trained by 'visattn fit', or vit-cifar10"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--data", choices=("shapes", "photographs", "cifar10", "cifar100"), help="a data set in place of images"
    )
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--annotations", help="of photographs: the caption file, relative to --root or absolute")
    parser.add_argument("--pictures", default="images", help="likewise, the folder of the pictures (default: images)")
    parser.add_argument(
        "--method",
        action="append",
        choices=tuple(dict.fromkeys([*CLASS_METHODS, *WORD_METHODS])),
        help="a map to judge, and more by another --method (default: all that there are)",
    )
    parser.add_argument("--split", choices=("val", "test"), help="of the data set (default: test, else val)")
    parser.add_argument("--limit", type=int, default=100, help="at most so many images, the first (default: 100)")
    parser.add_argument("--curves", type=int, help="for the curves, which take longest, at most so many of them")
    parser.add_argument("--steps", type=int, default=32, help="of a curve (default: 32)")
    parser.add_argument(
        "--units",
        choices=get_args(Units),
        default="pixels",
        help="take pixel by pixel, the map interpolated, or all of a cell at once (default: pixels)",
    )
    parser.add_argument(
        "--insert-from", choices=SUBSTRATES, default="blur", help="what insertion begins with (default: blur)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="random maps an image, and shuffles of α (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: 32)")
    parser.add_argument(
        "--precision", choices=("32", "bf16"), default="32", help="bf16: mixed, faster on some machines (default: 32)"
    )
    parser.add_argument("--title", help="a line above the figure (default: the checkpoint's name)")
    options = parser.parse_args(args)
    model = load_model(options.checkpoint, Captioner, Classifier)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = Settings(
        choose_methods(model, options.method),
        options.units,
        options.steps,
        options.insert_from,
        options.seeds,
        options.seed,
        options.batch_size,
        options.precision,
    )
    settings.check()
    examples = read_examples(model, options)
    options.output.mkdir(parents=True, exist_ok=True)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
        found = {"checkpoint": str(options.checkpoint), **report(model, examples, settings, options.curves)}
    write_text(options.output / "faithfulness.json", json.dumps(found, ensure_ascii=False, indent=1))
    write_text(options.output / "faithfulness.md", tables(found) + "\n")
    save_figure(figure_of(found, options.title or str(options.checkpoint)), options.output / "faithfulness.png")
    print(tables(found))
    print(f"\nfigure, tables and numbers are in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
