"""Test whether attention maps show what the model used."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visattn.data import CIFAR10, CIFAR100, CaptionData, Photographs, ShapesCaptions, ShapesClasses
from visattn.data.inputs import read_inputs
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.files import write_json, write_text
from visattn.images.reading import list_images
from visattn.overlay import save_figure
from visattn.precision import autocast, of_option
from visattn.studies.faithfulness import (
    CLASS_METHODS,
    WORD_METHODS,
    Example,
    Settings,
    figure,
    report,
    tables,
)
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier


def read_examples(model: Classifier | Captioner, options: argparse.Namespace) -> list[Example]:
    """The images that the options name.

    Raises:
        InputError: if they name none, or options do not belong together.
    """
    if bool(options.images) == bool(options.data):
        raise InputError("give either images and folders, or a data set with --data")
    needs = {"photographs": ("root", "annotations"), "cifar10": ("root",), "cifar100": ("root",)}.get(options.data, ())
    for name in ("root", "annotations"):
        given = getattr(options, name) is not None
        if given != (name in needs):
            kind = f"--data {options.data}" if options.data else "images"
            raise InputError(f"{kind} {'cannot take' if given else 'needs'} --{name}")
    if not options.data:
        paths = list_images(options.images)[: options.limit]
        return [Example(item.name, item.tensor, []) for item in read_inputs(paths, model.image_size, model.fit)]
    data = _data(model, options)
    if isinstance(data, CaptionData):
        found = next((e for split in _splits(options) if (e := data.examples(split))), None)
        if not found:
            raise InputError(f"{data.describe()} has no {' or '.join(_splits(options))} split")
        return [Example(e.id, data.load(e)[0], e.captions) for e in found[: options.limit]]
    split = _splits(options)[0]
    images, names = data.tensors(split)[0][: options.limit], data.ids(split)
    return [Example(name, image, []) for name, image in zip(names, images, strict=False)]


def choose_methods(model: Classifier | Captioner, asked: list[str] | None) -> tuple[str, ...]:
    """The maps that were asked for, or all that there are of such a model.

    Raises:
        InputError: if there is no such map of it.
    """
    known = CLASS_METHODS if isinstance(model, Classifier) else WORD_METHODS
    for name in asked or ():
        if name not in known:
            kind = "classifier" if isinstance(model, Classifier) else "captioner"
            raise InputError(f"--method {name} does not apply to a {kind}; choose from {', '.join(known)}")
    return tuple(dict.fromkeys(asked or known))


def _splits(options: argparse.Namespace) -> list[str]:
    return [options.split] if options.split else ["test", "val"]


def _data(model: Classifier | Captioner, options: argparse.Namespace) -> Any:
    """The data module that `--data` names."""
    captioner = isinstance(model, Captioner)
    if captioner != (options.data == "photographs") and options.data != "shapes":
        raise InputError(f"--data {options.data} does not fit a {'captioner' if captioner else 'classifier'}")
    if options.data == "shapes":
        return (ShapesCaptions if captioner else ShapesClasses)(image_size=model.image_size)
    if options.data == "photographs":
        more = {"image_size": model.image_size, "fit": model.fit, "limit": options.limit}
        data = Photographs(options.root, options.annotations, options.pictures, max_left_out=1, **more)
        data.tokens = model.vocabulary.tokens.spec
        return data
    data = {"cifar10": CIFAR10, "cifar100": CIFAR100}[options.data](options.root, download=False)
    data.check_size(model.image_size, f"--data {options.data}")
    return data


def inputs_of(options: argparse.Namespace) -> Iterator[Path]:
    """The files of a data set of photographs."""
    if options.root is not None and options.annotations is not None:
        yield options.root / options.annotations
        yield from (options.root / options.pictures).rglob("*")


def measure(options: argparse.Namespace) -> str:
    """Measure what the options of `visattn faithfulness` ask for, and write it.

    Returns:
        The tables.
    """
    model = load_model(options.checkpoint, Captioner, Classifier).to(choose_device(options.device))
    settings = Settings(
        choose_methods(model, options.method),
        options.units,
        options.steps,
        options.insert_from,
        options.seeds,
        options.seed,
        options.batch_size,
        of_option(options.precision, model.device),
    )
    examples = read_examples(model, options)
    options.output.mkdir(parents=True, exist_ok=True)
    with autocast(settings.precision, model.device):
        found = {"checkpoint": str(options.checkpoint), **report(model, examples, settings, options.curves)}
    write_json(options.output / "faithfulness.json", found)
    write_text(options.output / "faithfulness.md", tables(found) + "\n")
    save_figure(figure(found, options.title or str(options.checkpoint)), options.output / "faithfulness.png")
    return tables(found)
