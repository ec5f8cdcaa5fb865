"""A linear classifier of COCO's categories on the class token of a frozen Vision Transformer of timm.

    uv run python docs/examples/coco_head.py --weights FILE --instances instances.json --output runs/head images/

A photograph's class is the category with the largest outlined area in what the model sees of it. Photographs are dealt
into folds, each category evenly. Each fold is classified by logistic regression on the others, whose L2 penalty is
chosen within these. What is written belongs to the first fold: `weights.safetensors`, the model with the head that was
not trained on it, `names.txt`, and the fold's photographs in `held_out/`.
"""

import argparse
import collections
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from visattn.cli.program import check_ranges, parse, program
from visattn.data.inputs import Input, read_fitted
from visattn.data.instances import Instances
from visattn.errors import InputError
from visattn.explain import Subject, timm_subject
from visattn.images.reading import list_images

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Example(NamedTuple):
    """A photograph: its file, its category, and what the head reads of it (D,)."""

    path: Path
    category: str
    features: Tensor


def largest(instances: Instances, item: Input) -> str | None:
    """The category with the largest outlined area in the model's input; None where nothing is outlined."""
    key = instances.find(item.path.stem, item.path.name)
    masks = {} if key is None else instances.masks(key)
    areas = {
        name: int(item.geometry.resized((mask.shape[0], mask.shape[1])).to_input_mask(mask).sum())
        for name, mask in masks.items()
    }
    found = max(areas, key=lambda name: areas[name], default=None)
    return found if found is not None and areas[found] else None


@torch.no_grad()
def read(subject: Subject, folder: Path, instances: Instances) -> Iterator[Example]:
    """The photographs of a folder in which something is outlined."""
    model, files = subject.vit.model, list_images([folder])
    for item in tqdm(read_fitted(files, subject.see), desc="Reading", total=len(files), unit="image"):
        if category := largest(instances, item):
            tokens = model.forward_features(subject.normalise(item.tensor[None]))
            yield Example(item.path, category, model.forward_head(tokens, pre_logits=True)[0].double())


def dealt(labels: Tensor, folds: int, seed: int) -> Tensor:
    """The fold (N,) of each photograph: every label is spread evenly."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % folds
    return fold


def fitted(features: Tensor, labels: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Logistic regression on standardised features (N, D): the weights (classes, D) and biases, for features as given.

    The loss is the mean cross-entropy + penalty / 2 · ‖W‖², W of the standardised features.
    """
    mean, std = features.mean(dim=0), features.std(dim=0)
    x = (features - mean) / std
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return weight / std, bias - weight @ (mean / std)


def right(head: tuple[Tensor, Tensor], features: Tensor, labels: Tensor) -> Tensor:
    """Whether each of the photographs (N,) is classified as labelled."""
    weight, bias = head
    return (features @ weight.T + bias).argmax(dim=1) == labels


def chosen(features: Tensor, labels: Tensor, classes: int, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """`fitted` with the penalty that classifies most held-out ones of these photographs."""
    fold = dealt(labels, folds, seed)

    def score(penalty: float) -> int:
        parts = [(fold != n, fold == n) for n in range(folds)]
        heads = [(fitted(features[rest], labels[rest], classes, penalty), own) for rest, own in parts]
        return sum(int(right(head, features[own], labels[own]).sum()) for head, own in heads)

    return fitted(features, labels, classes, max(PENALTIES, key=score))


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photographs")
    parser.add_argument("--timm", default="vit_small_patch14_dinov2", help="model (default: %(default)s)")
    parser.add_argument("--weights", default="pretrained", help="file of its weights (default: those of timm's hub)")
    parser.add_argument("--image-size", type=int, default=224, help="side of its input (default: %(default)s)")
    parser.add_argument("--instances", type=Path, required=True, help="outlines, in COCO's format")
    parser.add_argument("--fewest", type=int, default=8, help="photographs of a category (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="parts of the photographs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="output folder")
    options = parse(parser, args, "output")
    check_ranges(options, fewest=(2, 10**6), folds=(2, 100))

    subject = timm_subject(options.timm, options.weights, image_size=options.image_size)
    examples = list(read(subject, options.images, Instances(options.instances)))
    counts = collections.Counter(example.category for example in examples)
    names = sorted(name for name, count in counts.items() if count >= options.fewest)
    if len(names) < 2:
        raise InputError(f"fewer than two categories have {options.fewest} photographs; give a smaller --fewest")
    examples = [example for example in examples if example.category in names]
    x = torch.stack([example.features for example in examples])
    y = torch.tensor([names.index(example.category) for example in examples])
    fold = dealt(y, options.folds, options.seed)

    hits = torch.empty(len(y), dtype=torch.bool)
    heads = []
    for n in range(options.folds):
        own, rest = fold == n, fold != n
        heads.append(chosen(x[rest], y[rest], len(names), options.folds, options.seed))
        hits[own] = right(heads[-1], x[own], y[own])
    shares = [float(hits[fold == n].double().mean()) for n in range(options.folds)]
    print(
        f"{len(y)} photographs of {len(names)} categories; the most frequent: {float(y.bincount().max()) / len(y):.1%}"
    )
    print(f"right in cross-validation: {float(hits.double().mean()):.1%}, by fold {np.round(shares, 3).tolist()}")

    model = subject.vit.model
    model.reset_classifier(len(names))
    classifier = model.get_classifier()
    with torch.no_grad():
        classifier.weight.copy_(heads[0][0])
        classifier.bias.copy_(heads[0][1])
    (options.output / "held_out").mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), options.output / "weights.safetensors")
    (options.output / "names.txt").write_text("\n".join(names) + "\n")
    for example, number in zip(examples, fold.tolist(), strict=True):
        if number == 0:
            shutil.copy(example.path, options.output / "held_out")


if __name__ == "__main__":
    sys.exit(main())
