"""Image towers of OpenCLIP."""

from typing import Any

from torch import Tensor, nn

from visattn.explain.layouts import timm
from visattn.explain.layouts.layout import Interface, Layout, UnreadableError, square_patches
from visattn.images.geometry import pair


def image_part(model: Any) -> nn.Module:
    """The image tower of a model that has one for texts, too."""
    visual = getattr(model, "visual", None)
    return visual if isinstance(visual, nn.Module) else model


def interface(model: Any) -> Interface:
    """How an image tower is run; it gives features."""
    size = getattr(model, "image_size", 224)
    pooled = getattr(model, "pool_type", "tok") == "tok" and getattr(model, "attn_pool", None) is None
    return Interface(
        run=lambda network, images: _features(network(images)),
        classes=0,
        size=pair(size if isinstance(size, tuple | list) else (size, size)),
        channels=next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), None),
        class_tokens=timm.interface(model.trunk).class_tokens if hasattr(model, "trunk") else int(pooled),
    )


def _features(out: Any) -> Any:
    """The pooled features of a tower, of those that return their tokens, too."""
    return out[0] if isinstance(out, tuple) else out


def _projected(model: Any, token: Tensor) -> Tensor:
    return token if model.proj is None else token @ model.proj


def layout(model: Any) -> Layout:
    """The properties of OpenCLIP's `VisionTransformer`, and of a tower that is a model of timm.

    Raises:
        UnreadableError: if it is another, or several latent queries attend to its tokens.
    """
    if hasattr(model, "trunk"):
        layout = timm.layout(model.trunk)
        head = layout.token_head
        return layout._replace(token_head=None if head is None else lambda token: model.head(head(token)))
    blocks = getattr(getattr(model, "transformer", None), "resblocks", None)
    if blocks is None or not isinstance(getattr(model, "conv1", None), nn.Conv2d):
        raise UnreadableError("it has no row of transformer blocks over one grid of patches")
    if model.attn_pool is not None:
        raise UnreadableError("several latent queries attend to its tokens")
    if model.pool_type not in ("tok", "avg"):
        raise UnreadableError(f"its features are pooled by '{model.pool_type}', and 'tok' and 'avg' can be followed")
    return Layout(
        depth=len(blocks),
        patch=pair(model.patch_size),
        prefix=1,
        rows=slice(0, 1) if model.pool_type == "tok" else slice(1, None),
        **square_patches(model.conv1),
        fixed=pair(model.image_size),
        blocks=tuple(blocks),
        token_head=lambda token: _projected(model, model.ln_post(token)),
    )
