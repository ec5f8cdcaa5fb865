"""Image towers of OpenCLIP, with their own preprocessing."""

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms import CenterCrop

from visattn.errors import InputError, similar
from visattn.explain.fitting import Fitting, covering, squashed_to
from visattn.explain.libraries.loading import asked_once, checked_size, installed, short, subject, weights_file
from visattn.explain.subject import Subject
from visattn.explain.texts import Texts, texts_of
from visattn.images.geometry import Pair, pair


def open_clip_subject(
    name: str,
    weights: str | Path = "pretrained",
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
) -> Subject:
    """The image tower of a model of OpenCLIP, in evaluation mode, on the CPU.

    It has features, and no classes until texts are given; see `Subject.comparing`.

    Args:
        name: of the model, such as ViT-B-32, or of the model and of its weights, such as ViT-B-32/openai.
        weights: "pretrained" for those that `name` ends with, "random" for none, or a file that OpenCLIP reads.
        class_names: none can be given.
        image_size: (h, w) of the input, or the side of a square, to which OpenCLIP resamples position embeddings; None
            takes what the model says.

    Raises:
        InputError: if OpenCLIP is not installed or has no such model; if its weights are not named or cannot be had; if
            it cannot be read (see `ViT`, `Layered`). `comparing` also raises it if a text is too long, or the
            tokenizer cannot be had.
    """
    open_clip, size = installed("open_clip", "open_clip"), checked_size(image_size)
    architecture, _, tag = name.partition("/")
    if open_clip.get_model_config(architecture) is None:
        known = similar(architecture, open_clip.list_models()) or "ViT-B-32"
        raise InputError(f"OpenCLIP has no model named '{architecture}' (similar: {known})")
    model = _with_weights(open_clip, architecture, tag, weights, size).eval()
    config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    fitting = open_clip_fitting(open_clip, config)
    encode = functools.partial(_encoded, open_clip, architecture, model)
    return subject(model, name, fitting, (config.mean, config.std), class_names, list, encode)


def _encoded(open_clip: Any, architecture: str, model: Any, texts: list[str]) -> Texts:
    """Texts as the model encodes them."""
    try:
        tokenizer = open_clip.get_tokenizer(architecture)
        length = tokenizer.context_length
        tokens, longer = tokenizer(texts), tokenizer(texts, context_length=2 * length)
    except Exception as error:  # whatever it meets on the network: some tokenizers are fetched from the hub
        raise InputError(f"the tokenizer of {architecture} could not be loaded ({short(error)})") from error
    cut = [text for text, a, b in zip(texts, tokens, longer, strict=True) if not torch.equal(a, b[:length])]
    if cut:
        raise InputError(f"{architecture} takes texts of up to {length} tokens; shorten '{cut[0]}'")
    with torch.no_grad():
        features = model.encode_text(tokens.to(model.logit_scale.device))
    return texts_of(model, texts, features, nn.Identity())


def _with_weights(
    open_clip: Any, architecture: str, tag: str, weights: str | Path, size: tuple[int, int] | None
) -> Any:
    options: dict[str, Any] = {"pretrained_text": False}
    if size is not None:
        options["force_image_size"] = size
    if weights == "pretrained":
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if tag not in tags:
            said = f"has no weights named '{tag}'" if tag else "has several weights"
            known = ", ".join(f"open_clip:{architecture}/{known}" for known in tags[:4])
            raise InputError(
                f"{architecture} {said}; give one of {known or 'none'}, --weights FILE, or --weights random to try the "
                "command"
            )
        source = tag
    elif weights == "random":
        source = None
    else:
        source = str(weights_file(weights))
    try:
        with asked_once() if weights == "pretrained" else nullcontext():
            return open_clip.create_model(architecture, pretrained=source, **options)
    except Exception as error:  # whatever it meets on the network, and files of other kinds
        if weights == "pretrained":
            raise InputError(
                f"the weights {tag} of {architecture} could not be downloaded ({short(error)}); give --weights FILE, "
                "or --weights random to try the command"
            ) from error
        what = f"{source} does not hold weights of" if source else "OpenCLIP cannot create"
        raise InputError(f"{what} {architecture}: {short(error)}") from error


def open_clip_fitting(open_clip: Any, config: Any) -> Fitting:
    """OpenCLIP's own preprocessing for evaluation.

    Args:
        open_clip: the library.
        config: its `PreprocessCfg`.
    """
    size = pair(config.size if isinstance(config.size, tuple | list) else (config.size,) * 2)
    resize, crop, *_ = open_clip.transform.image_transform_v2(config, is_train=False).transforms
    if config.resize_mode == "squash":
        return Fitting(size, squashed_to(size), resize)
    if config.resize_mode == "longest":

        def within(sides: tuple[int, int]) -> Pair:
            return (min(n / side for n, side in zip(size, sides, strict=True)),) * 2

        return Fitting(size, within, resize, crop)
    return Fitting(size, covering(size), resize, crop if isinstance(crop, CenterCrop) else None)
