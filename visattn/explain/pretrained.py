"""Vision Transformers from timm, with timm's preprocessing and class names."""

import collections
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from visattn.errors import InputError
from visattn.explain.layered import as_read
from visattn.explain.subject import Subject
from visattn.images.geometry import CellShift, Geometry, Pair, pair
from visattn.models.normalise import Normalise
from visattn.models.weights import of_file

MAX_RESIZED = 80_000_000  # pixels of a picture on its way to the input: 240 MB
MAX_SIDE = 4096  # pixels of an input's side, and …
MAX_CELLS = 16_384  # … patches of it: attention of a layer has the square of that many weights for each head


def timm_subject(
    name: str,
    weights: str | Path = "pretrained",
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    **options: Any,
) -> Subject:
    """A Vision Transformer of timm, in evaluation mode, on the CPU.

    Args:
        name: as timm knows it, with or without the tag of its weights.
        weights: "pretrained" for those of the hub, "random" for none, or a file with timm's keys; the number of classes
            is then the file's.
        class_names: of its classes; None takes ImageNet's, where it has as many classes as one of timm's ImageNets, and
            else numbers.
        image_size: (h, w) of the input, or the side of a square; None takes what timm's configuration says.
        options: more arguments for `timm.create_model`.

    Raises:
        InputError: if timm has no such model, or it cannot be read (see `ViT`, `Layered`); if the weights cannot be had
            or do not fit; if the names are not as many as the classes.
    """
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise InputError(f"timm has no model named '{name}' (similar: {similar})")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        bare = name.partition(".")[0]
        known = ", ".join(timm.list_models(f"{bare}.*", pretrained=True)[:5]) or bare
        raise InputError(f"timm has no weights named '{name}' (known: {known})") from error
    if image_size is not None:
        image_size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        if len(image_size) != 2 or not all(isinstance(n, int) and 1 <= n <= MAX_SIDE for n in image_size):
            raise InputError(f"the image size is {image_size}; height and width must be 1 to {MAX_SIDE} pixels")
        options["img_size"] = image_size
    model = _with_weights(name, weights, options).eval()
    config = resolve_model_data_config(model)
    size = pair(image_size or config["input_size"][1:])
    vit = as_read(model, name, size)
    cells = math.prod(vit.grid(size))
    if cells > MAX_CELLS:
        raise InputError(f"an input of {size[1]}×{size[0]} pixels has {cells:,} patches, more than {MAX_CELLS:,}")
    if vit.channels not in (None, 3):
        raise InputError(f"{name} takes images with {vit.channels} channels, but images have 3; leave out in_chans")
    if class_names is None:
        class_names = imagenet_names(model) if vit.classes else []
    if len(class_names) != vit.classes:
        raise InputError(f"{len(class_names)} class names were given, but {name} has {vit.classes} classes")
    fit = timm_fit(config | {"size": size}, vit.cells(size))
    return Subject(vit, Normalise(config["mean"], config["std"]), fit, list(class_names))


def _with_weights(name: str, weights: str | Path, options: dict[str, Any]) -> nn.Module:
    if weights == "random":
        return _create(name, options)
    if weights == "pretrained":
        with torch.device("meta"):
            _create(name, options)  # so that what fails further down is not for the options
        try:
            return timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # whatever the hub's client meets on the network, and models without weights
            raise InputError(
                f"the weights of {name} could not be downloaded from timm's hub ({_short(error)}); give --weights "
                "FILE, or --weights random to try the command"
            ) from error
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; give 'pretrained', 'random' or a file")
    try:
        return of_file(name, path, **options)
    except Exception as error:  # whatever reading a file of another kind trips over
        raise InputError(f"{path} does not hold weights of {name}: {_short(error)}") from error


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # timm checks few of its options: they fail wherever they are first used
        given = f" with {', '.join(f'{key}={value}' for key, value in options.items())}" if options else ""
        raise InputError(f"timm cannot create {name}{given}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def imagenet_names(model: nn.Module) -> list[str]:
    """The names of a model's classes: ImageNet's where it has as many, and else numbers.

    Of the words for a class it is the first; where classes share it, all words, and the number where these are shared.
    """
    subset = infer_imagenet_subset(model)
    if subset is None:
        classes: Any = model.num_classes
        return [str(number) for number in range(classes)]
    described = ImageNetInfo(subset).label_descriptions()
    short = [words.split(", ")[0] for words in described]
    count = collections.Counter(short)
    names = [first if count[first] == 1 else words for first, words in zip(short, described, strict=True)]
    count = collections.Counter(names)
    return [name if count[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def timm_fit(
    config: dict[str, Any], cells: CellShift | Pair = (0.0, 0.0)
) -> Callable[[Image.Image], tuple[Image.Image, Geometry]]:
    """Timm's own preprocessing of a picture for evaluation, and the geometry that it has.

    Args:
        config: timm's data configuration, with "size", the (h, w) of the input.
        cells: where the cells of the model's maps look, as `Geometry.cell_shift`.

    Returns:
        From an upright RGB picture to the input image and its geometry; it raises an `InputError` where the sides
        differ so much that the picture would become enormous on the way, or vanish.
    """
    size = config["size"]
    resize, crop = create_transform(
        size, **{key: config[key] for key in ("crop_pct", "crop_mode", "interpolation", "mean", "std")}
    ).transforms[:2]
    before_crop = [side / config["crop_pct"] for side in size]

    def fit(image: Image.Image) -> tuple[Image.Image, Geometry]:
        sides = (image.height, image.width)
        scales = [n / side for n, side in zip(before_crop, sides, strict=True)]
        if config["crop_mode"] != "squash":
            scales = [(min if config["crop_mode"] == "border" else max)(scales)] * 2
        height, width = (side * scale for side, scale in zip(sides, scales, strict=True))
        if height * width > MAX_RESIZED or min(height, width) < 1:
            raise InputError(
                f"an image of {image.width}×{image.height} pixels cannot be resized to {size[1]}×{size[0]}: "
                "its sides differ too much; crop it first"
            )
        resized = resize(image)
        scale = (resized.height / image.height, resized.width / image.width)
        offset = pair(float(_offset(r, s)) for r, s in zip((resized.height, resized.width), size, strict=True))
        return crop(resized), Geometry(sides, size, scale, offset, cells)

    return fit


def _offset(resized: int, size: int) -> int:
    """Where torchvision's centre crop begins; before the picture where that is padded."""
    return round((resized - size) / 2) if resized >= size else -((size - resized) // 2)
