"""visattn's own Vision Transformer."""

from visattn.explain.layouts import timm
from visattn.explain.layouts.layout import Interface, Layout
from visattn.images.geometry import pair
from visattn.models import VisionTransformer


def interface(model: VisionTransformer) -> Interface:
    """How it is run."""
    return Interface(lambda network, images: network(images), model.head.out_features, pair((224, 224)), 3, 1)


def layout(model: VisionTransformer) -> Layout:
    """Its properties; its stem keeps cells on their own squares."""
    return Layout(
        depth=len(model.blocks),
        patch=pair((model.patch, model.patch)),
        prefix=1,
        rows=slice(0, 1),
        grid=lambda *size: pair(model.grid_of(*size)),
        embedding=None,
        blocks=tuple(model.blocks),
        token_head=timm.token_head(model),
    )
