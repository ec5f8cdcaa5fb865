"""Vision Transformers of timm, regardless of their class, and networks that resemble them."""

from collections.abc import Callable
from typing import Any

from timm.data import resolve_model_data_config
from timm.layers import Format
from torch import Tensor, nn

from visattn.explain.layouts.layout import Interface, Layout, UnreadableError
from visattn.explain.reading import uncompiled
from visattn.images.geometry import pair


def interface(model: Any) -> Interface:
    """How a network that takes images and gives logits is run."""
    first = next(((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d)), None)
    token = getattr(model, "global_pool", "token") == "token"
    built = getattr(uncompiled(getattr(model, "patch_embed", None)), "img_size", None)  # option `img_size`
    return Interface(
        run=lambda network, images: network(images),
        classes=int(getattr(model, "num_classes", 0)),
        size=pair(built or resolve_model_data_config(model)["input_size"][1:]),
        channels=first[1].in_channels if first is not None and "patch" in first[0] else None,
        class_tokens=(1 if getattr(model, "head_dist", None) is None else 2) if token else 0,
    )


def layout(model: Any) -> Layout:
    """The properties of timm's Vision Transformers.

    Raises:
        UnreadableError: if the network is none, or has no one map for each layer.
    """
    embed, blocks = (uncompiled(getattr(model, part, None)) for part in ("patch_embed", "blocks"))
    if any("Window" in type(module).__name__ for module in model.modules()):
        raise UnreadableError("it attends within windows, so no layer's map is one of the whole image")
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(embed, "dynamic_feat_size"):
        raise UnreadableError("it has no row of transformer blocks over one grid of patches")
    if any(len(getattr(uncompiled(block), "attns", ())) > 1 for block in blocks):
        raise UnreadableError("its blocks attend several times in parallel, so a layer has no one map")
    prefix, pooling = getattr(model, "num_prefix_tokens", 1), getattr(model, "global_pool", "token")
    patches = slice(0 if getattr(model, "pool_include_prefix", False) else prefix, None)
    if pooling not in ("token", "avg", "map"):
        raise UnreadableError(f"its classes are pooled by '{pooling}', and 'token', 'avg' and 'map' can be followed")
    class_tokens = slice(0, 2 if hasattr(model, "head_dist") else 1)
    taken, registers = getattr(embed, "img_size", None), getattr(model, "reg_token", None)
    return Layout(
        depth=len(blocks),
        # A hybrid's patch is one of its convolutions' grid.
        patch=pair(embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else embed.patch_size),
        prefix=prefix,
        rows={"token": class_tokens, "avg": patches, "map": slice(None)}[pooling],
        grid=lambda *size: pair(embed.dynamic_feat_size(size)),
        embedding=lambda grid: _Patches(embed, grid),
        latent=pooling == "map",
        fixed=pair(taken) if taken is not None and getattr(embed, "strict_img_size", False) else None,
        blocks=tuple(map(uncompiled, blocks)),
        registers=0 if registers is None else registers.shape[1],
        token_head=None if pooling == "map" else token_head(model),
        signed=any(hasattr(part, "lambda_q1") for part in model.modules()),
    )


def token_head(model: Any) -> Callable[[Tensor], Tensor] | None:
    """The last norm and the head of a network, on one token (B, D); see `Layout`."""
    norm, fc_norm, head, other = (getattr(model, name, None) for name in ("norm", "fc_norm", "head", "head_dist"))
    if not isinstance(norm, nn.Module) or not isinstance(head, nn.Linear | nn.Identity):
        return None

    def logits(token: Tensor) -> Tensor:
        pooled = norm(token.unsqueeze(1)).squeeze(1)
        pooled = pooled if fc_norm is None else fc_norm(pooled)
        return head(pooled) if other is None else (head(pooled) + other(pooled)) / 2

    return logits


class _Patches(nn.Module):
    """The patch embedding of timm's Vision Transformers, as a feature map (1, H, W, D)."""

    def __init__(self, embed: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.embed, self.grid = embed, grid

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embed(pixels)
        if tokens.dim() == 4 and Format(getattr(self.embed, "output_fmt", "NCHW")) is Format.NCHW:
            return tokens.permute(0, 2, 3, 1)
        return tokens if tokens.dim() == 4 else tokens.unflatten(1, self.grid)
