"""Vision models of transformers, from the hub or a folder of `save_pretrained`, with their own processor and labels."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from visattn.errors import InputError
from visattn.explain.fitting import Fitting, Scales, centre, covering, shortest_to, squashed_to, unchanged
from visattn.explain.layouts.transformers import vision_config
from visattn.explain.libraries.loading import asked_once, checked_size, installed, short, subject
from visattn.explain.libraries.timm import shortened
from visattn.explain.subject import Subject
from visattn.explain.texts import Texts, texts_of
from visattn.images.geometry import pair

log = logging.getLogger(__name__)

# The processor of each family's published models, for a folder without one, and what differs from its class's defaults.
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(("vit", "ijepa"), ("ViT", {})),
    **dict.fromkeys(("vit_mae", "vit_msn", "swin", "swinv2"), ("ViT", _IMAGENET)),
    "deit": ("DeiT", _IMAGENET),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), ("Bit", {"size": {"shortest_edge": 256}, **_IMAGENET})),
    "dinov3_vit": ("DINOv3ViT", {}),
    **dict.fromkeys(("clip_vision_model", "metaclip_2_vision_model", "chinese_clip_vision_model"), ("CLIP", {})),
    "siglip_vision_model": ("Siglip", {}),
    **dict.fromkeys(("beit", "data2vec-vision"), ("Beit", {})),
    **dict.fromkeys(("blip_vision_model", "blip_2_vision_model"), ("Blip", {})),
}
_OWN_SIZE = ("dinov2", "dinov2_with_registers", "dinov3_vit")  # shown other images than their position embeddings were


def transformers_subject(
    name: str,
    weights: str | Path = "pretrained",
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
) -> Subject:
    """A vision model of transformers, in evaluation mode, on the CPU, in float32.

    Args:
        name: of a model on the hub, or a folder that `save_pretrained` wrote; a model that reads or writes texts, too,
            gives its image part. Code that comes with a model is not run.
        weights: "pretrained", or "random" for those of a new model with this configuration.
        class_names: of its classes; None takes `id2label` of the configuration.
        image_size: (h, w) of the input, or the side of a square; None takes what the processor says. A folder without
            a `preprocessor_config.json` gets its family's, and a line is logged.

    Raises:
        InputError: if transformers is not installed or does not know the model; if it cannot be had, or its weights are
            incomplete; if it cannot be read (see `ViT`, `Layered`); if its processor pads, or does not say one size.
            `comparing` also raises it if there is no tokenizer, or a text is too long.
    """
    transformers, size = installed("transformers", "transformers"), checked_size(image_size)
    if str(weights) not in ("pretrained", "random"):
        raise InputError(f"hf:{name} takes no weights file; give a folder that save_pretrained wrote, or 'random'")
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif name.startswith((".", "/", "~")):
        raise InputError(f"there is no folder {folder}; give one that save_pretrained wrote, or a name on the hub")
    config = _fetched(transformers.AutoConfig.from_pretrained, name)
    model = _model(transformers, name, config, str(weights)).float().eval()
    processor = _processor(transformers, name, vision_config(model))
    fitting, mean_std = _fitting(processor, size, name), _mean_std(processor)
    labels = [str(config.id2label[number]) for number in sorted(config.id2label)]
    imagenet = len(labels) in (1000, 21841, 21843)  # whose labels are all words for a class
    own = shortened(labels) if imagenet else labels
    return subject(model, name, fitting, mean_std, class_names, lambda: own, _encoder(transformers, name, model))


_COMPARING = ("clip", "metaclip_2", "chinese_clip", "siglip", "siglip2", "blip")  # model types
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


def _encoder(transformers: Any, name: str, model: Any) -> Callable[[list[str]], Texts] | None:
    """How texts are encoded; None if the model cannot compare images with texts."""
    if model.config.model_type not in _COMPARING or not hasattr(model, "get_text_features"):
        return None

    @functools.cache
    def tokenizer() -> Any:
        if (folder := Path(name)).is_dir() and not any((folder / file).is_file() for file in _VOCABULARIES):
            raise InputError(f"{name} has no tokenizer for texts; save the model's own to the folder")
        return _fetched(transformers.AutoTokenizer.from_pretrained, name)

    return lambda texts: _encoded(name, model, tokenizer(), texts)


def _encoded(name: str, model: Any, tokenizer: Any, texts: list[str]) -> Texts:
    """Texts as the model encodes them."""
    config = model.config
    length = config.text_config.max_position_embeddings
    # SigLIP was trained on texts padded to their full length, without a mask.
    padding: dict[str, Any] = {"padding": True}
    if config.model_type.startswith("siglip"):
        padding = {"padding": "max_length", "max_length": length, "return_attention_mask": False}
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    if tokens["input_ids"].shape[1] > length:
        raise InputError(f"{name} takes texts of up to {length} tokens; shorten '{max(texts, key=len)}'")
    with torch.no_grad():
        features = model.get_text_features(**tokens.to(model.device), return_dict=True).pooler_output
    return texts_of(model, texts, features, getattr(model, "visual_projection", nn.Identity()))


def _fetched(call: Any, name: str, **options: Any) -> Any:
    """What transformers reads from a folder or fetches from the hub."""
    try:
        with nullcontext() if Path(name).is_dir() else asked_once():
            return call(name, **options)
    except Exception as error:  # whatever it meets on the network, and in files of other kinds
        if Path(name).is_dir():
            raise InputError(f"{name} does not hold a model of transformers: {short(error)}") from error
        raise InputError(
            f"{name} could not be loaded from the hub of transformers ({short(error)}); give a folder that "
            "save_pretrained wrote"
        ) from error


def _model(transformers: Any, name: str, config: Any, weights: str) -> nn.Module:
    if config.model_type == "timm_wrapper":
        raise InputError(f"{name} is a model of timm; give it as timm:{getattr(config, 'architecture', 'NAME')}")
    kinds = [getattr(transformers, kind) for kind in config.architectures or () if hasattr(transformers, kind)]
    kind = kinds[0] if kinds else transformers.AutoModel
    if kinds and "pixel_values" not in inspect.signature(kind.forward).parameters:
        raise InputError(f"{name} takes no images: it is a {kind.__name__}")
    if weights == "random":
        make = transformers.AutoModel.from_config if kind is transformers.AutoModel else kind
        return _fetched(lambda _: make(config), name)
    model, loaded = _fetched(kind.from_pretrained, name, config=config, output_loading_info=True)
    # A pooler of features, and what stands for masked patches, have no part in maps.
    missing = [key for key in loaded["missing_keys"] if not any(part in key for part in ("pooler", "mask_token"))]
    if missing:
        raise InputError(f"{name} lacks weights of {kind.__name__}: {', '.join(sorted(missing)[:3])}")
    return model


def _processor(transformers: Any, name: str, config: Any) -> Any:
    """The model's image processor, or its family's."""
    folder = Path(name)
    files = ("preprocessor_config.json", "processor_config.json")
    if not folder.is_dir() or any((folder / file).is_file() for file in files):
        return _fetched(transformers.AutoImageProcessor.from_pretrained, name)
    if config.model_type not in _DEFAULTS:
        raise InputError(
            f"{name} has no preprocessor_config.json, and that of the family {config.model_type} is not known; "
            "save its image processor to the folder"
        )
    kind, options = _DEFAULTS[config.model_type]
    processor = getattr(transformers, f"{kind}ImageProcessor")(**options)
    if config.model_type not in _OWN_SIZE:
        side = config.image_size
        _resize_to(processor, pair(side) if isinstance(side, list | tuple) else (side, side))
    log.info(
        "%s has no preprocessor_config.json; taken is that of its family, %s: size %s, mean %s, std %s",
        *(name, type(processor).__name__, _sizes(processor.size), processor.image_mean, processor.image_std),
    )
    return processor


def _sizes(given: Any) -> dict[str, int]:
    """What a processor says of a size, without what it leaves open."""
    return {key: value for key, value in dict(given or {}).items() if value is not None}


def _cropped_to(processor: Any) -> tuple[int, int] | None:
    crop = _sizes(processor.crop_size) if getattr(processor, "do_center_crop", False) else {}
    return (crop["height"], crop["width"]) if crop else None


def _resize_to(processor: Any, size: tuple[int, int]) -> None:
    """Make a processor's input another size, with the same share of it cropped."""
    resized, crop = _sizes(processor.size), _cropped_to(processor)
    if crop is not None:
        processor.crop_size = {"height": size[0], "width": size[1]}
    if "shortest_edge" in resized:
        # The side that a square would have; `_fitting` sees to that images cover others.
        share = resized["shortest_edge"] / (crop[0] if crop else resized["shortest_edge"])
        processor.size = {"shortest_edge": round(share * max(size))}
    else:
        shares = [resized[key] / n for key, n in zip(("height", "width"), crop, strict=True)] if crop else [1.0, 1.0]
        height, width = (round(share * n) for share, n in zip(shares, size, strict=True))
        processor.size = {"height": height, "width": width}


def _fitting(processor: Any, size: tuple[int, int] | None, name: str) -> Fitting:
    """How the processor makes a picture the model's input: the library resizes, and the centre is cropped."""
    kind, resized = type(processor).__name__, _sizes(getattr(processor, "size", None))
    known = set(resized) in ({"height", "width"}, {"shortest_edge"}) or not processor.do_resize
    if not known or getattr(processor, "do_pad", False) or kind.startswith("ConvNext"):
        raise InputError(
            f"the processor of {name}, {kind}, resizes images to {resized} in a way that maps cannot be laid back "
            "from; save one that resizes to height and width, or its shortest_edge and then crops the centre"
        )
    if size is not None:
        _resize_to(processor, size)
        resized = _sizes(processor.size)
    target = _cropped_to(processor)
    if target is None and not (processor.do_resize and "height" in resized):
        raise InputError(f"the processor of {name}, {kind}, gives each image another size; save one that crops")
    height, width = target or (resized["height"], resized["width"])
    covers = processor.do_resize and "shortest_edge" in resized and height != width
    if not processor.do_resize:
        scales: Scales = unchanged
    elif covers:
        share = resized["shortest_edge"] / max(height, width)
        scales = covering((height * share, width * share))
    elif "shortest_edge" in resized:
        scales = shortest_to(resized["shortest_edge"])
    else:
        scales = squashed_to((resized["height"], resized["width"]))

    def resize(image: Image.Image) -> Image.Image:
        options: dict[str, Any] = dict.fromkeys(("do_center_crop", "do_rescale", "do_normalize"), False)
        if covers:  # more than a processor can say: other sizes for each image
            sides = (image.height, image.width)
            vertical, horizontal = (round(n * scale) for n, scale in zip(sides, scales(sides), strict=True))
            options["size"] = {"height": vertical, "width": horizontal}
        pixels = processor(images=image, return_tensors="np", **options)["pixel_values"][0]
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(np.uint8))

    return Fitting((height, width), scales, resize, begins=centre)


def _mean_std(processor: Any) -> tuple[list[float], list[float]]:
    """Of pixels in [0, 1], with the processor's own rescaling made part of them."""
    factor = 255 * (processor.rescale_factor if processor.do_rescale else 1.0)
    mean, std = ([0.0] * 3, [1.0] * 3) if not processor.do_normalize else (processor.image_mean, processor.image_std)
    mean, std = ([value] * 3 if isinstance(value, int | float) else list(value) for value in (mean, std))
    if abs(factor - 1) < 1e-6:  # 1/255, as written in a file
        return mean, std
    return [m / factor for m in mean], [s / factor for s in std]
