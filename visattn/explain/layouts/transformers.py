"""Vision models of transformers.

The library itself is not imported: its models are recognised by where their class is defined.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visattn.explain.layouts.layout import Interface, Layout, UnreadableError, square_patches
from visattn.images.geometry import pair

# Tokens before the patches, by the vision configuration's model type: class and distillation tokens; registers add up.
_PREFIX = {
    **dict.fromkeys(("vit", "vit_msn", "vit_mae", "dinov2", "dinov2_with_registers", "dinov3_vit", "beit"), 1),
    **dict.fromkeys(("data2vec-vision", "blip_vision_model", "blip_2_vision_model", "clip_vision_model"), 1),
    **dict.fromkeys(("metaclip_2_vision_model", "chinese_clip_vision_model"), 1),
    **dict.fromkeys(("siglip_vision_model", "ijepa"), 0),
    "deit": 2,
}
_CLASSIFIERS_OF_PATCHES = {f"{name}ForImageClassification" for name in ("CLIP", "Siglip", "MetaClip2")}
_IMAGE_PARTS = ("vision_model", "vision_tower", "vision_encoder", "encoder", "model")


def _names(model: nn.Module) -> set[str]:
    return {kind.__name__ for kind in type(model).__mro__}


def image_part(model: Any) -> nn.Module:
    """The part of a model that takes images alone: without its text model, its decoder or the head of a pretext task.

    Raises:
        UnreadableError: if it has none.
    """
    taken = inspect.signature(model.forward).parameters
    if "pixel_values" in taken and not {"input_ids", "decoder_input_ids", "text_input_ids"} & set(taken):
        pretext = any("ForMaskedImageModeling" in name or "ForPreTraining" in name for name in _names(model))
        return model.base_model if pretext else model
    for name in _IMAGE_PARTS:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and hasattr(part, "config"):
            return image_part(part)
    raise UnreadableError("it takes no images")


def vision_config(model: Any) -> Any:
    """Of a model's configuration, the part that is about images."""
    return getattr(model.config, "vision_config", model.config)


def _is_classifier(model: nn.Module) -> bool:
    return any("ForImageClassification" in name for name in _names(model))


def interface(model: Any) -> Interface:
    """How a vision model is run. Models that interpolate their position embeddings take images of any size."""
    config = vision_config(model)
    side = getattr(config, "image_size", 224)
    size = pair(side) if isinstance(side, list | tuple) else (side, side)
    interpolates = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters

    def run(network: Callable[..., Any], images: Tensor) -> Tensor:
        other = interpolates and tuple(images.shape[-2:]) != size
        options = {"interpolate_pos_encoding": True} if other else {}
        if config.model_type != "vit_mae":
            return _features(network(images, return_dict=True, **options))
        # Without masking, and in the order of the image.
        count = images.shape[-2] // config.patch_size * (images.shape[-1] // config.patch_size)
        noise = torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)
        share, config.mask_ratio = config.mask_ratio, 0.0
        try:
            return _features(network(images, noise=noise, return_dict=True, **options))
        finally:
            config.mask_ratio = share

    return Interface(
        run=run,
        classes=model.config.num_labels if _is_classifier(model) else 0,
        size=size,
        channels=getattr(config, "num_channels", None),
        class_tokens=1,
    )


def _features(out: Any) -> Tensor:
    """Logits, or else the pooled features that the model gives, or those of its first token."""
    for name in ("logits", "image_embeds", "pooler_output"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)
    if getattr(out, "last_hidden_state", None) is not None:
        return out.last_hidden_state[:, 0]
    return out.feature_maps[-1].flatten(2).mean(dim=2)


def layout(model: Any) -> Layout:
    """The properties of a Vision Transformer of a known family.

    Raises:
        UnreadableError: if the family is another, or attends within windows.
    """
    config = vision_config(model)
    if config.model_type not in _PREFIX:
        raise UnreadableError(f"transformers' {config.model_type} is no known Vision Transformer over one grid")
    prefix = _PREFIX[config.model_type] + getattr(config, "num_register_tokens", 0)
    convolution = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    patches = slice(prefix, None)
    latent = config.model_type == "siglip_vision_model" and getattr(config, "vision_use_head", True)
    unread = latent and _is_classifier(model)
    if "DeiTForImageClassificationWithTeacher" in _names(model):
        rows = slice(0, 2)
    elif latent and not unread:
        rows = slice(None)
    elif not prefix or getattr(config, "use_mean_pooling", False) or _names(model) & _CLASSIFIERS_OF_PATCHES:
        rows = patches
    else:
        rows = slice(0, 1)
    interpolates = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    known = interface(model)
    rows_of_blocks = (part for part in model.modules() if isinstance(part, nn.ModuleList))
    return Layout(
        depth=config.num_hidden_layers,
        patch=pair(convolution.kernel_size),
        prefix=prefix,
        rows=rows,
        **square_patches(convolution),
        latent=latent and not unread,
        unread=unread,
        fixed=None if interpolates or config.model_type.startswith("dino") else known.size,
        blocks=tuple(next((row for row in rows_of_blocks if len(row) == config.num_hidden_layers), ())),
        registers=getattr(config, "num_register_tokens", 0),
        token_head=None if latent and not unread else _token_head(model),
    )


def _token_head(model: Any) -> Callable[[Tensor], Tensor] | None:
    """The last norm and the head of a model, on one token (B, D); see `Layout`."""
    base = model.base_model if hasattr(model.base_model, "embeddings") else getattr(model, "vision_model", None)
    pooler = getattr(base, "pooler", None)
    found = (getattr(base, name, None) for name in ("post_layernorm", "layernorm", "norm"))
    norm: Any = getattr(pooler, "layernorm", None) or next((part for part in found if part is not None), None)
    names = ("classifier", "cls_classifier", "visual_projection")
    head: Any = next((part for name in names if (part := getattr(model, name, None)) is not None), nn.Identity())
    unfit = isinstance(head, nn.Linear) and head.in_features != vision_config(model).hidden_size  # as DINOv2's
    if norm is None or unfit or hasattr(pooler, "dense"):
        return None
    if "CLIPForImageClassification" in _names(model):  # whose classes are read from patches without a norm
        return head
    if vision_config(model).model_type.startswith("blip"):  # whose pooled token passes it twice
        return lambda token: head(norm(norm(token)))
    other: Any = getattr(model, "distillation_classifier", None)
    return lambda token: head(norm(token)) if other is None else (head(norm(token)) + other(norm(token))) / 2
