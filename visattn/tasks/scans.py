"""Classify images in glimpses and overlay the scan path on the original pixels."""

import argparse
import itertools
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from visattn.data.inputs import Input, read_inputs
from visattn.devices import choose_device
from visattn.errors import InputError
from visattn.export import ExportedClassifier
from visattn.export.shipped import is_exported, load_exported
from visattn.files import guarded, protect, write_bytes, write_npz
from visattn.images.reading import list_images
from visattn.models import GlimpseModel
from visattn.overlay import Paper, ScanPath, scan_gif, scan_sheet
from visattn.precision import autocast, of_option
from visattn.results import ClassWriter
from visattn.results.classes import encode_sheet

if TYPE_CHECKING:
    from visattn.training.glimpses import GlimpseClassifier

_OF_MAPS = (
    *("method", "layer", "head", "layers", "heads", "fusion", "discard", "target", "text", "at", "queries"),
    *("test_time_registers", "scale", "end", "colour_map", "opacity", "interpolation", "contour", "workers"),
)
_OF_LIBRARIES = ("weights", "classes", "image_size")  # refused with any checkpoint


def choose_glimpses(options: argparse.Namespace, given: Collection[str]) -> "GlimpseClassifier | None":
    """The glimpse model that the command line asks for; None if it asks for another model.

    Args:
        options: all options.
        given: the names of those that are not at their defaults.

    Raises:
        InputError: if the checkpoint cannot be read, or an option is for attention maps.
    """
    if options.checkpoint is None or any(getattr(options, option) is not None for option in _OF_LIBRARIES):
        return None
    if is_exported(options.checkpoint):
        exported = load_exported(options.checkpoint)
        if not isinstance(exported, ExportedClassifier) or not isinstance(exported.model, GlimpseModel):
            return None
    from visattn.training.checkpoints import load_model, trained  # Lightning takes seconds; exported ViTs need none
    from visattn.training.glimpses import GlimpseClassifier

    if trained(options.checkpoint)[1] != f"{GlimpseClassifier.__module__}.{GlimpseClassifier.__qualname__}":
        return None
    for option in _OF_MAPS:
        if option in given:
            raise InputError(
                f"--{option.replace('_', '-')} is for Vision Transformers; {options.checkpoint} is a glimpse model"
            )
    return load_model(options.checkpoint, GlimpseClassifier)


@guarded()
def overlay_scans(
    model: "GlimpseClassifier",
    images: Sequence[Path],
    output: Path,
    exports: Sequence[str] = ("sheet", "gif", "npz"),
    paper: Paper = Paper(),
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "auto",
) -> list[dict]:
    """Classify the images in files and folders; see `visattn.cli.overlay` for what is written.

    Returns:
        The entries of `classes.json`: image, class, probability, overlay, files, and for each glimpse its class,
        probability and location (y, x) in original pixels.
    """
    paths = list_images(images)
    writer = ClassWriter(output, model.class_names, exports, paper=paper)
    protect(paths)
    writer.check_overwriting(paths)
    output.mkdir(parents=True, exist_ok=True)
    model = model.to(choose_device(device))
    precision = of_option(precision, model.device)
    inputs, entries = read_inputs(paths, model.image_size, model.fit), []
    with autocast(precision, model.device):
        while batch := list(itertools.islice(inputs, batch_size)):
            for item, path in zip(batch, scan_paths(model, batch), strict=True):
                entries.append(_write(item, path, output, exports, paper, model.class_names))
    writer.finish(entries)
    return entries


@torch.no_grad()
def scan_paths(model: "GlimpseClassifier", batch: Sequence[Input]) -> list[ScanPath]:
    """What the model saw of each image, and said, until it stopped."""
    pixels = model.normalise(torch.stack([item.tensor for item in batch]).to(model.device))
    scan, network = model.model.scan(pixels), model.model
    taken = scan.taken().tolist()
    probabilities, classes = scan.logits.float().softmax(dim=-1).max(dim=-1)
    height, width = model.image_size
    centres = ((scan.locations + 1) / 2 * scan.locations.new_tensor([height, width])).cpu().numpy()
    glimpses = [network.sensor(pixels, location) for location in scan.locations.unbind(dim=1)]
    seen = torch.stack(glimpses, dim=1).unflatten(2, (-1, 3))  # (B, T, K, 3, size, size)
    shown = _colours(model, seen)
    side = getattr(network.context, "side", None)
    overviews = None if side is None else _colours(model, F.adaptive_avg_pool2d(pixels, side))
    return [
        ScanPath(
            centres[i, :count],
            network.sensor.squares,
            shown[i, :count],
            [model.class_names[c] for c in classes[i, :count].tolist()],
            probabilities[i, :count].tolist(),
            None if overviews is None else overviews[i],
        )
        for i, count in enumerate(taken)
    ]


def _colours(model: "GlimpseClassifier", normalised: Tensor) -> np.ndarray:
    """Normalised colours (…, 3, h, w) as they were, (…, h, w, 3) uint8."""
    colours = (normalised.float() * model.normalise.std + model.normalise.mean) * 255
    return colours.round().clamp(0, 255).byte().movedim(-3, -1).cpu().numpy()


def _write(
    item: Input, path: ScanPath, output: Path, exports: Sequence[str], paper: Paper, class_names: Sequence[str]
) -> dict:
    """Write an image's files; its entry in the list."""
    centres, files = item.geometry.to_original(path.centres), []
    if forms := [form for form in ("sheet", "svg", "pdf") if form in exports]:
        draw = partial(scan_sheet, item.original, path, item.geometry, title=item.path.name, paper=paper)
        files += [f"{item.name}.{'png' if form == 'sheet' else form}" for form in forms]
        for name, content in zip(files, encode_sheet(draw, forms), strict=True):
            write_bytes(output / name, content)
    if "gif" in exports:
        files.append(f"{item.name}.gif")
        write_bytes(output / files[-1], scan_gif(item.original, path, item.geometry))
    if "npz" in exports:
        files.append(f"{item.name}.npz")
        write_npz(
            output / files[-1],
            locations=centres,
            squares=np.array(path.squares),
            glimpses=path.glimpses,
            predicted=np.array(path.classes),
            confidence=np.array(path.probabilities),
            classes=np.array(class_names),
            geometry=item.geometry.to_array(),
        )
    steps = [
        {"class": name, "probability": probability, "location": [round(float(at), 1) for at in centre]}
        for name, probability, centre in zip(path.classes, path.probabilities, centres, strict=True)
    ]
    return {
        "image": str(item.path),
        "class": path.classes[-1],
        "probability": path.probabilities[-1],
        "overlay": f"{item.name}.png" if "sheet" in exports else None,
        "files": files,
        "glimpses": steps,
    }
