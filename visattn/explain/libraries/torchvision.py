"""Classifiers of torchvision, with the preprocessing and the class names of their published weights."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import resize

from visattn.errors import InputError
from visattn.explain.fitting import Fitting, covering, shortest_to
from visattn.explain.libraries.loading import checked_size, short, state_of, subject
from visattn.explain.libraries.timm import shortened
from visattn.explain.subject import Subject


def torchvision_subject(
    name: str,
    weights: str | Path = "pretrained",
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    **options: Any,
) -> Subject:
    """A transformer of torchvision's classifiers, in evaluation mode, on the CPU.

    Args:
        name: as torchvision knows it, such as vit_b_16 or swin_t.
        weights: "pretrained" for torchvision's own, "random" for none, or a file with torchvision's keys; the number of
            classes is then the file's.
        class_names: of its classes; None takes ImageNet's, where it has as many, and else numbers.
        image_size: (h, w) of the input, or the side of a square; None takes that of the published weights. The position
            embeddings of a `VisionTransformer` are interpolated by torchvision, and only to squares.
        options: more arguments for the model's function.

    Raises:
        InputError: if torchvision has no such classifier, or it cannot be read (see `ViT`, `Layered`); if the weights
            cannot be had or do not fit; if the names are not as many as the classes.
    """
    size = checked_size(image_size)
    if name not in torchvision.models.list_models(torchvision.models):
        similar = ", ".join(n for n in torchvision.models.list_models(torchvision.models) if n[:3] == name[:3])
        raise InputError(f"torchvision has no classifier named '{name}' (similar: {similar or 'vit_b_16, swin_t'})")
    published = torchvision.models.get_model_weights(name).DEFAULT
    preset = published.transforms()
    if not isinstance(preset, ImageClassification):
        raise InputError(f"torchvision's {name} does not classify single images")
    own = (preset.crop_size[0],) * 2
    if name.startswith("vit_") and size is not None:
        if size[0] != size[1]:
            raise InputError(f"torchvision's {name} takes square images only, not {size[1]}×{size[0]}")
        options["image_size"] = size[0]
    model = _with_weights(name, weights, published, options).eval()
    names = functools.partial(_names, model, published.meta["categories"])
    fitting = torchvision_fitting(preset, size or own)
    return subject(model, name, fitting, (preset.mean, preset.std), class_names, names)


def _with_weights(name: str, weights: str | Path, published: Any, options: dict[str, Any]) -> nn.Module:
    if weights == "random":
        return _made(name, options)
    if weights == "pretrained":
        try:
            state = published.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # whatever its client meets on the network
            raise InputError(
                f"the weights of {name} could not be downloaded from torchvision's server ({short(error)}); give "
                "--weights FILE, or --weights random to try the command"
            ) from error
    else:
        weights = Path(weights).expanduser()
        state = state_of(weights, name)
    try:
        last = [value for key, value in state.items() if key.endswith("weight") and value.dim() == 2][-1]
        model = _made(name, options | {"num_classes": len(last)})
        if "image_size" in options and "encoder.pos_embedding" in state:
            state = interpolate_embeddings(options["image_size"], model.patch_size, dict(state))
        model.load_state_dict(state)
    except Exception as error:  # whatever does not fit
        raise InputError(f"{weights} does not hold weights of {name}: {short(error)}") from error
    return model


def _made(name: str, options: dict[str, Any]) -> Any:
    try:
        return torchvision.models.get_model(name, weights=None, **options)
    except Exception as error:  # of options that the model does not have
        raise InputError(f"torchvision cannot create {name} with {options}: {short(error)}") from error


def _names(model: nn.Module, categories: Sequence[str]) -> list[str]:
    classes = [part for part in model.modules() if isinstance(part, nn.Linear)][-1].out_features
    return shortened(categories) if len(categories) == classes else [str(number) for number in range(classes)]


def torchvision_fitting(preset: ImageClassification, size: tuple[int, int]) -> Fitting:
    """The preprocessing of published weights, for an input of (h, w) pixels; the share that is cropped stays."""
    share = preset.resize_size[0] / preset.crop_size[0]
    options = {"interpolation": preset.interpolation, "antialias": preset.antialias}
    if size[0] == size[1]:
        side = round(share * size[0])
        return Fitting(size, shortest_to(side), lambda image: resize(image, [side], **options))
    scales = covering((size[0] * share, size[1] * share))

    def cover(image: Any) -> Any:
        sides = (image.height, image.width)
        return resize(image, [round(n * scale) for n, scale in zip(sides, scales(sides), strict=True)], **options)

    return Fitting(size, scales, cover)
