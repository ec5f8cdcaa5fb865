"""Vision Transformers of torchvision."""

from typing import Any

from torch import nn
from torchvision.models import VisionTransformer

from visattn.explain.layouts.layout import Interface, Layout, UnreadableError, square_patches
from visattn.images.geometry import pair


def interface(model: Any) -> Interface:
    """How a classifier of torchvision is run; images of 224 × 224 pixels are taken where it does not say."""
    size = getattr(model, "image_size", 224)
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    return Interface(
        run=lambda network, images: network(images),
        classes=linear[-1].out_features if linear else 0,
        size=pair((size, size)),
        channels=next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), None),
        class_tokens=1 if isinstance(model, VisionTransformer) else 0,
    )


def layout(model: nn.Module) -> Layout:
    """The properties of torchvision's `VisionTransformer`.

    Raises:
        UnreadableError: if it is another.
    """
    if not isinstance(model, VisionTransformer):
        raise UnreadableError("it has no row of transformer blocks over one grid of patches")
    if not isinstance(model.conv_proj, nn.Conv2d):
        raise UnreadableError("its patches come from several convolutions")
    return Layout(
        depth=len(model.encoder.layers),
        patch=pair((model.patch_size, model.patch_size)),
        prefix=1,
        rows=slice(0, 1),
        **square_patches(model.conv_proj),
        fixed=pair((model.image_size, model.image_size)),
        blocks=tuple(model.encoder.layers),
        token_head=lambda token: model.heads(model.encoder.ln(token)),
    )
