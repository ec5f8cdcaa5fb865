"""Rank attention maps of a classifier."""

import argparse
from collections.abc import Callable

import numpy as np
from PIL import Image

from visattn.data import CIFAR10, CIFAR100, ShapesClasses
from visattn.data.classification import ClassificationData
from visattn.data.inputs import read_fitted
from visattn.data.instances import Instances
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.explain import Subject
from visattn.explain.methods import methods_of
from visattn.files import write_json, write_text
from visattn.images import Geometry
from visattn.images.reading import list_images
from visattn.overlay import save_figure
from visattn.precision import autocast, of_option
from visattn.studies.ranking import Example, Settings, figure, measure, report, table
from visattn.tasks.overlay import choose_subject

DATA = {"shapes": ShapesClasses, "cifar10": CIFAR10, "cifar100": CIFAR100}
Outline = Callable[[str], np.ndarray | None]


def read_examples(subject: Subject, options: argparse.Namespace) -> list[Example]:
    """The images that the options name.

    Raises:
        InputError: if they name none, or options do not belong together.
    """
    if bool(options.images) == bool(options.data):
        raise InputError("give either images and folders, or a data set with --data")
    if options.data and options.instances is not None:
        raise InputError("--instances is for images, not for --data: shapes has its own outlines, and CIFAR has none")
    if (options.root is not None) != (options.data in ("cifar10", "cifar100")):
        kind = f"--data {options.data}" if options.data else "images"
        raise InputError(f"{kind} {'needs' if options.root is None else 'cannot take'} --root")
    if options.data:
        return _of_data(subject, options)
    instances = None if options.instances is None else Instances(options.instances)
    examples = []
    for item in read_fitted(list_images(options.images)[: options.limit], subject.see):
        key = None if instances is None else instances.find(item.path.stem, item.path.name)
        outline = None if instances is None or key is None else _in_input(instances, key, item.geometry)
        examples.append(Example(item.name, item.tensor, *([outline] if outline else [])))
    return examples


def _in_input(instances: Instances, key: str, geometry: Geometry) -> Outline:
    """Where a category is in a model's input."""

    def outline(name: str) -> np.ndarray | None:
        mask = instances.mask(key, name) if name in instances.categories else None
        if mask is None:
            return None
        inside = geometry.resized((mask.shape[0], mask.shape[1])).to_input_mask(mask)
        return inside if inside.any() else None

    return outline


def _of_data(subject: Subject, options: argparse.Namespace) -> list[Example]:
    data: ClassificationData
    size = subject.fit(Image.new("RGB", (64, 64)))[1].input
    if options.data == "shapes":  # no more scenes than are asked for; each is the same however many there are
        data = ShapesClasses(image_size=size, val_size=options.limit, test_size=options.limit)
    else:
        data = DATA[options.data](options.root, download=False)
        data.check_size(size, f"--data {options.data}")
    if subject.class_names != data.class_names:
        raise InputError(f"--data {options.data} has other classes than {subject.vit.name}")
    split = options.split or "test"
    images, labels = (part[: options.limit] for part in data.tensors(split))
    names = data.ids(split)
    if not len(images):
        raise InputError(f"--data {options.data} has no {split} split")
    outlines: list[tuple[Outline, ...]] = [()] * len(images)
    if isinstance(data, ShapesClasses):
        outlines = [(_large_thing(data, split, n, data.class_names[labels[n]]),) for n in range(len(images))]
    return [Example(*parts, *outline) for *parts, outline in zip(names, images, outlines, strict=False)]


def _large_thing(data: ShapesClasses, split: str, number: int, truth: str) -> Outline:
    """The large thing of a scene, where its colour is the class that is explained."""

    def outline(name: str) -> np.ndarray | None:
        scene = data.scene(split, number)
        return scene.mask(scene.things[:1], data.image_size[0]) if name == truth else None

    return outline


def choose_methods(subject: Subject, asked: list[str] | None) -> tuple[str, ...]:
    """The maps asked for, or all that are defined for the model.

    Raises:
        InputError: if the model has no classes.
    """
    if not subject.class_names:
        raise InputError(f"{subject.vit.name} has no classes, so no map of it can be ranked; give a classifier")
    return tuple(dict.fromkeys(asked or methods_of(subject.vit)))


def rank(options: argparse.Namespace) -> str:
    """Rank as the options of `visattn rank` ask, and write the results.

    Returns:
        The table.
    """
    subject = choose_subject(options)
    settings = Settings(
        choose_methods(subject, options.method),
        options.units,
        options.steps,
        options.groups,
        options.insert_from,
        options.seeds,
        options.seed,
        options.batch_size,
    )
    examples = read_examples(subject, options)
    subject = subject.to(choose_device(options.device))
    options.output.mkdir(parents=True, exist_ok=True)
    with autocast(of_option(options.precision, subject.device), subject.device):
        measured = measure(subject, examples, settings)
    found = {"model": subject.vit.name, **report(measured, examples, subject.class_names, settings)}
    write_json(options.output / "rank.json", found)
    write_text(options.output / "rank.md", table(found) + "\n")
    save_figure(figure(found, options.title or subject.vit.name), options.output / "rank.png")
    return table(found)
