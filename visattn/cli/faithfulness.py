r"""Does the attention map matter? Deletion and insertion by it, beside maps that know nothing; captions without it.

    visattn faithfulness --checkpoint runs/cifar10_vit/best.ckpt --output runs/faithful photo.jpg folder/
    visattn faithfulness --checkpoint runs/shapes_captioner/best.ckpt --output runs/faithful --data shapes
    visattn faithfulness --checkpoint runs/flickr8k_soft/best.ckpt --output runs/faithful --data photographs \
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from visattn.captioner import Captioner
from visattn.checkpoints import load_model
from visattn.classifier import Classifier
from visattn.cli.program import check_ranges, command_parser, parse, program
from visattn.data import CIFAR10, CIFAR100, CaptionData, Photographs, ShapesCaptions, ShapesClasses
from visattn.data.inputs import read_inputs
from visattn.errors import InputError
from visattn.explain.faithfulness import Units
from visattn.files import protect, require_free, write_text
from visattn.images.reading import list_images
from visattn.overlay import save_figure
from visattn.precision import OPTIONS, of_option
from visattn.studies.faithfulness import (
    CLASS_METHODS,
    SUBSTRATES,
    WORD_METHODS,
    Example,
    Settings,
    figure,
    report,
    tables,
)


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
        data = Photographs(options.root, options.annotations, options.pictures, max_left_out=1, **more)
        data.tokens = model.vocabulary.tokens.spec
        return data
    data = {"cifar10": CIFAR10, "cifar100": CIFAR100}[options.data](options.root, download=False)
    if data.image_size != model.image_size:
        sizes = ["{1}×{0}".format(*size) for size in (data.image_size, model.image_size)]
        raise InputError(f"--data {options.data} has images of {sizes[0]} pixels, and this model takes {sizes[1]}")
    return data


def inputs_of(options: argparse.Namespace) -> Iterator[Path]:
    """The files of a data set of photographs."""
    if options.root is not None and options.annotations is not None:
        yield options.root / options.annotations
        yield from (options.root / options.pictures).rglob("*")


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("faithfulness", __doc__)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE|FOLDER", help="image files, and folders of them")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a model of 'visattn fit', or one that comes with visattn"
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
        "--precision",
        choices=OPTIONS,
        default="32",
        help="bf16: mixed, faster on some machines; auto: bf16 on those (default: 32)",
    )
    parser.add_argument("--title", help="a line above the figure (default: the checkpoint's name)")
    options = parse(parser, args, "output")
    check_ranges(options, batch_size=(1, 65_536), steps=(1, 10_000), seeds=(1, 10_000), seed=(0, 2**32 - 1))
    protect(list_images(options.images))
    protect(inputs_of(options))
    require_free(options.output / f"faithfulness.{suffix}" for suffix in ("json", "md", "png"))
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
        of_option(options.precision, model.device),
    )
    settings.check()
    examples = read_examples(model, options)
    options.output.mkdir(parents=True, exist_ok=True)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        found = {"checkpoint": str(options.checkpoint), **report(model, examples, settings, options.curves)}
    write_text(options.output / "faithfulness.json", json.dumps(found, ensure_ascii=False, indent=1))
    write_text(options.output / "faithfulness.md", tables(found) + "\n")
    save_figure(figure(found, options.title or str(options.checkpoint)), options.output / "faithfulness.png")
    print(tables(found))
    print(f"\nfigure, tables and numbers are in {options.output}")
