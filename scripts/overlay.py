"""Classify images with a Vision Transformer and lay where it looked over their original pixels.

    uv run scripts/overlay.py --checkpoint runs/demo/vit/best.ckpt --output runs/overlays photo.jpg folder/
    uv run scripts/overlay.py --timm vit_small_patch16_224 --method relevance --target "tabby" --output runs/cat cat.jpg
    uv run scripts/overlay.py --timm deit3_small_patch16_224 --weights FILE --method raw --layer 5 --head 2 \
        --method rollout --fusion max --discard 0.9 --output runs/deit photo.jpg

Methods, each by --method: raw (a layer's attention), rollout (Abnar and Zuidema 2020), gradient-rollout (Gildenblat
2020) and relevance (Chefer, Gur and Wolf 2021); the last two explain a class, the likeliest or --target. Without any,
rollout and the last layer are shown.

Writes to the output folder, for each image, a sheet with the methods' maps (<stem>.png) and the maps themselves
(<stem>.npz: for each method its name with _ for -, (H, W), such as `rollout`; `layers` (depth, heads, H, W), what is
attended to in every layer and head; `probabilities`, `classes`; `target`, the number of the class explained; and
`geometry` (5, 2), see `visattn.geometry.Geometry`); and at the end `classes.json`, a list with an entry for each image.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from visattn.checkpoints import load_model
from visattn.classifier import Classifier
from visattn.data.images import Input, list_images, read_fitted
from visattn.errors import InputError
from visattn.explain import GradientRollout, Raw, Relevance, Rollout, Subject, ViT, timm_subject
from visattn.explain.rollout import Fusion
from visattn.files import write_npz, write_text
from visattn.overlay import caption_sheet, classification_sheet, save_figure
from visattn.program import program

METHODS = {"raw": Raw, "rollout": Rollout, "gradient-rollout": GradientRollout, "relevance": Relevance}
OF_CLASS = ("gradient-rollout", "relevance")
Method = Callable[[ViT, Tensor, Tensor | None], Tensor]


def overlay_images(
    subject: Subject,
    images: Iterable[Path],
    output: Path,
    methods: Mapping[str, Method] | None = None,
    target: str | None = None,
    scale: str | None = None,
    batch_size: int = 8,
    truths: Mapping[str, str] | None = None,
) -> list[dict]:
    """Classify the images in files and folders and explain it; see the head of this file for what is written.

    Args:
        subject: the classifier.
        images: files and folders.
        output: folder for what is written; made where missing.
        methods: by their names; None is rollout and the last layer.
        target: the class to explain, its name or number; None takes the likeliest.
        scale: "shared" or "own", the maps' colour scale; None shares it where all maps are weights of attention.
        batch_size: images at a time.
        truths: the true class by file stem, where known; the sheets then say whether the prediction is right.

    Returns:
        The entries of `classes.json`: image, class, probability (where the model has classes), overlay (file name).
    """
    paths = list_images(images)
    methods = {"rollout": Rollout(), "raw": Raw()} if methods is None else methods
    number = None if target is None else subject.target(target)
    scale = scale or ("own" if set(methods) & set(OF_CLASS) else "shared")
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    inputs = read_fitted(paths, subject.see)
    with tqdm(total=len(paths), desc="Looking", unit="image") as bar:
        while batch := list(itertools.islice(inputs, batch_size)):
            for item, found in zip(batch, look(subject, batch, methods, number), strict=True):
                top = likeliest(subject, found)
                figure = sheet(subject, item, found, methods, number, top, scale, (truths or {}).get(item.name))
                save_figure(figure, output / f"{item.name}.png")
                write_npz(
                    output / f"{item.name}.npz",
                    **{name.replace("-", "_"): value for name, value in found.items()},
                    classes=np.array(subject.class_names),
                    geometry=item.geometry.to_array(),
                )
                entry = {"image": str(item.path)}
                if top:
                    entry |= {"class": top[0][0], "probability": top[0][1]}
                entries.append(entry | {"overlay": f"{item.name}.png"})
                bar.update()
    write_text(output / "classes.json", json.dumps(entries, ensure_ascii=False, indent=1))
    return entries


def look(
    subject: Subject, batch: Sequence[Input], methods: Mapping[str, Method], number: int | None
) -> list[dict[str, np.ndarray]]:
    """What is kept of each image: the maps by their method, every layer's and head's, and the probabilities."""
    images = torch.stack([item.tensor for item in batch])
    pixels = subject.normalise(images)
    found = {"layers": subject.vit.rows(pixels)}
    targets = None
    if subject.class_names:
        found["probabilities"] = subject.probabilities(images)
        targets = found["probabilities"].argmax(dim=-1) if number is None else torch.full((len(batch),), number)
        found["target"] = targets
    found |= {name: method(subject.vit, pixels, targets) for name, method in methods.items()}
    arrays = (part.cpu().numpy() for part in found.values())
    return [dict(zip(found, row, strict=True)) for row in zip(*arrays, strict=True)]


def likeliest(subject: Subject, found: Mapping[str, np.ndarray]) -> list[tuple[str, float]]:
    """The five likeliest classes with their probabilities, the likeliest first; none of a model without classes."""
    if not subject.class_names:
        return []
    order = np.argsort(-found["probabilities"])[:5]
    return [(subject.class_names[i], float(found["probabilities"][i])) for i in order]


def sheet(
    subject: Subject,
    item: Input,
    found: Mapping[str, np.ndarray],
    methods: Mapping[str, Method],
    number: int | None,
    top: Sequence[tuple[str, float]],
    scale: str,
    truth: str | None,
) -> Any:
    """The figure of an image."""
    titles = [
        f"{method}, {subject.class_names[number]}" if name in OF_CLASS and number is not None else str(method)
        for name, method in methods.items()
    ]
    maps = [found[name] for name in methods]
    kinds = {"relevance" if name in OF_CLASS else "attention" for name in methods}
    if not top:
        return caption_sheet(item.original, titles, maps, item.geometry, scale=scale, title=item.path.name)
    return classification_sheet(
        item.original,
        list(zip(titles, maps, strict=True)),
        item.geometry,
        label=top[0][0],
        probability=top[0][1],
        top=top,
        truth=truth,
        title=item.path.name,
        scale=scale,
        meaning=" and ".join(sorted(kinds)),
    )


def choose_methods(options: argparse.Namespace) -> dict[str, Method]:
    """The methods that the command line asks for, by their names, in its order."""
    names = list(dict.fromkeys(options.method or ["rollout", "raw"]))
    rollouts = ("rollout", "gradient-rollout")
    for option, users in (("layer", ("raw",)), ("head", ("raw",)), ("fusion", rollouts), ("discard", rollouts)):
        if getattr(options, option) is not None and not set(names) & set(users):
            raise InputError(f"--{option} is for --method {' and '.join(users)}")
    if options.target is not None and not set(names) & set(OF_CLASS):
        raise InputError(f"--target is for --method {' and '.join(OF_CLASS)}; other maps are the same for every class")
    given = {
        "raw": {"layer": options.layer, "head": options.head},
        **{name: {"fusion": options.fusion, "discard": options.discard} for name in rollouts},
        "relevance": {},
    }
    return {
        name: METHODS[name](**{key: value for key, value in given[name].items() if value is not None}) for name in names
    }


def choose_subject(options: argparse.Namespace) -> Subject:
    """The model that the command line asks for."""
    if options.checkpoint is not None:
        for option in ("weights", "classes", "image_size"):
            if getattr(options, option) is not None:
                raise InputError(f"--{option.replace('_', '-')} is for --timm; a checkpoint has its own")
        return load_model(options.checkpoint, Classifier).subject(str(options.checkpoint))
    return timm_subject(
        options.timm,
        options.weights or "pretrained",
        None if options.classes is None else read_names(options.classes),
        None if options.image_size is None else tuple(options.image_size),
    )


def read_names(path: Path) -> list[str]:
    """Names of classes, one a line."""
    if not path.is_file():
        raise InputError(f"there is no file {path} with names of classes")
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: names of classes are wanted, one a line") from error


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="a classifier trained by 'visattn fit'")
    model.add_argument("--timm", metavar="NAME", help="a Vision Transformer of timm, such as vit_small_patch16_224")
    parser.add_argument("--output", type=Path, required=True, help="folder for what is written; made where missing")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="of the timm model: a file with timm's keys, or 'random' (default: pretrained, from timm's hub)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the timm model's classes, one a line")
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the timm model's input (default: as timm's configuration says)",
    )
    parser.add_argument("--method", action="append", choices=METHODS, help="may be given several times; see above")
    parser.add_argument("--layer", type=int, help="of raw, from 0 (default: -1, the last)")
    parser.add_argument("--head", type=int, help="of raw, from 0 (default: the mean of all)")
    parser.add_argument("--fusion", choices=get_args(Fusion), help="of heads in a rollout (default: mean)")
    parser.add_argument(
        "--discard", type=float, help="share of a layer's weights that a rollout leaves out, the smallest (default: 0)"
    )
    parser.add_argument("--target", metavar="CLASS", help="to explain: a name or number (default: the likeliest)")
    parser.add_argument(
        "--scale",
        choices=("shared", "own"),
        help="one colour scale for all maps of an image, or one for each map (default: shared, or own where a method "
        "explains a class, since units then differ)",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images at a time (default: 8)")
    options = parser.parse_args(args)
    if options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}; it must be at least 1")
    methods = choose_methods(options)
    list_images(options.images)  # before a model is fetched
    entries = overlay_images(
        choose_subject(options),
        options.images,
        options.output,
        methods,
        options.target,
        options.scale,
        options.batch_size,
    )
    for entry in entries:
        print(f"{entry['image']}: {entry['class']}, {entry['probability']:.0%}" if "class" in entry else entry["image"])
    print(f"overlays, maps and classes.json are in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
