"""Vision Transformers from timm, with timm's preprocessing and class names."""

import collections
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from visattn.errors import InputError, similar
from visattn.explain.fitting import Fitting
from visattn.explain.libraries.loading import asked_once, checked_size, short, subject, weights_file
from visattn.explain.subject import Subject
from visattn.images.geometry import Pair, pair
from visattn.models.weights import of_file


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
        known = similar(name, timm.list_models()) or "see timm.list_models()"
        raise InputError(f"timm has no model named '{name}' (similar: {known})")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        bare = name.partition(".")[0]
        known = ", ".join(timm.list_models(f"{bare}.*", pretrained=True)[:5]) or bare
        raise InputError(f"timm has no weights named '{name}' (known: {known})") from error
    image_size = checked_size(image_size)
    if image_size is not None:
        options["img_size"] = image_size
    model = _with_weights(name, weights, options).eval()
    config = resolve_model_data_config(model)
    fitting = timm_fitting(config | {"size": image_size or pair(config["input_size"][1:])})
    mean_std = config["mean"], config["std"]
    return subject(model, name, fitting, mean_std, class_names, functools.partial(imagenet_names, model))


def _with_weights(name: str, weights: str | Path, options: dict[str, Any]) -> nn.Module:
    if weights == "random":
        return _create(name, options)
    if weights == "pretrained":
        with torch.device("meta"):
            _create(name, options)  # so that what fails further down is not for the options
        try:
            with asked_once():
                return timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # whatever the hub's client meets on the network, and models without weights
            raise InputError(
                f"the weights of {name} could not be downloaded from timm's hub ({short(error)}); give --weights "
                "FILE, or --weights random to try the command"
            ) from error
    path = weights_file(weights)
    try:
        return of_file(name, path, **options)
    except Exception as error:  # whatever reading a file of another kind trips over
        raise InputError(f"{path} does not hold weights of {name}: {short(error)}") from error


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # timm checks few of its options: they fail wherever they are first used
        given = f" with {', '.join(f'{key}={value}' for key, value in options.items())}" if options else ""
        raise InputError(f"timm cannot create {name}{given}: {short(error)}") from error


def imagenet_names(model: nn.Module) -> list[str]:
    """The names of a model's classes: ImageNet's where it has as many, and else numbers.

    Of the words for a class it is the first; where classes share it, all words, and the number where these are shared.
    """
    subset = infer_imagenet_subset(model)
    if subset is None:
        classes: Any = model.num_classes
        return [str(number) for number in range(classes)]
    return shortened(list(ImageNetInfo(subset).label_descriptions()))


def shortened(described: Sequence[str]) -> list[str]:
    """Of the words for a class, parted by commas, the first; where classes share it, all words, or the number, too."""
    firsts = [words.split(", ")[0] for words in described]
    count = collections.Counter(firsts)
    names = [first if count[first] == 1 else words for first, words in zip(firsts, described, strict=True)]
    count = collections.Counter(names)
    return [name if count[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def timm_fitting(config: dict[str, Any]) -> Fitting:
    """Timm's own preprocessing of a picture for evaluation.

    Args:
        config: timm's data configuration, with "size", the (h, w) of the input.
    """
    size = config["size"]
    resize, crop = create_transform(
        size, **{key: config[key] for key in ("crop_pct", "crop_mode", "interpolation", "mean", "std")}
    ).transforms[:2]
    before_crop = [side / config["crop_pct"] for side in size]

    def scales(sides: tuple[int, int]) -> Pair:
        both = [n / side for n, side in zip(before_crop, sides, strict=True)]
        if config["crop_mode"] == "squash":
            return pair(both)
        return pair([(min if config["crop_mode"] == "border" else max)(both)] * 2)

    return Fitting(size, scales, resize, crop)
