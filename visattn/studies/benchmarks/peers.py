"""One Vision Transformer in several libraries, with the same weights.

Each peer runs as fast as its library runs it, and, on a model of its own where that must be made otherwise, hands out
attention maps as its library does. A library that is not installed is no peer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import timm
import torch
from timm.utils import AttentionExtract
from torch import Tensor, nn

from visattn.models import VisionTransformer


class Architecture(NamedTuple):
    """A Vision Transformer with a class token; the names are those of `VisionTransformer`."""

    classes: int
    image_size: tuple[int, int]
    patch: int
    size: int
    depth: int
    heads: int
    mlp_ratio: float

    def build(self) -> VisionTransformer:
        """Ours, with a head that is not all zeros, so that logits say something."""
        model = VisionTransformer(**self._asdict())
        nn.init.trunc_normal_(model.head.weight, std=0.02)
        return model


class Peer(NamedTuple):
    """A library's own Vision Transformer.

    Attributes:
        name: the library.
        model: what is trained.
        logits: images (B, 3, h, w) to logits (B, classes), by `model`.
        maps: images to the weights of each layer, (B, heads, N, N) each, the first layer first, by the library's own
            way, which computes the logits too.
    """

    name: str
    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    maps: Callable[[Tensor], Sequence[Tensor]]


def ours(architecture: Architecture, weights: Mapping[str, Tensor]) -> Peer:
    """visattn, whose maps come from `VisionTransformer.with_weights`."""
    model = _given(architecture.build(), weights)
    return Peer("visattn", model, model, lambda images: model.with_weights(images)[1])


def of_timm(architecture: Architecture, weights: Mapping[str, Tensor]) -> Peer:
    """timm, whose fused attention is switched off for maps, which hooks then hear (`timm.utils.AttentionExtract`)."""

    def build() -> nn.Module:
        model = timm.models.VisionTransformer(
            img_size=architecture.image_size,
            patch_size=architecture.patch,
            embed_dim=architecture.size,
            depth=architecture.depth,
            num_heads=architecture.heads,
            mlp_ratio=architecture.mlp_ratio,
            num_classes=architecture.classes,
        )
        return _given(model, weights)

    model, unfused = build(), build()
    for block in unfused.blocks:
        block.attn.fused_attn = False
    extract = AttentionExtract(unfused, method="hook")
    return Peer("timm", model, model, lambda images: list(extract(images).values()))


def of_transformers(architecture: Architecture, weights: Mapping[str, Tensor]) -> Peer:
    """transformers, whose maps come from `output_attentions` with its eager attention."""
    from transformers import ViTConfig, ViTForImageClassification

    def build(attention: str) -> nn.Module:
        config = ViTConfig(
            image_size=architecture.image_size,
            patch_size=architecture.patch,
            hidden_size=architecture.size,
            num_hidden_layers=architecture.depth,
            num_attention_heads=architecture.heads,
            intermediate_size=int(architecture.size * architecture.mlp_ratio),
            num_labels=architecture.classes,
            layer_norm_eps=1e-6,
            attn_implementation=attention,
        )
        return _given(ViTForImageClassification(config), transformers_state(weights))

    model, eager = build("sdpa"), build("eager").eval()
    return Peer(
        "transformers",
        model,
        lambda images: model(images).logits,
        lambda images: eager(images, output_attentions=True).attentions,
    )


def transformers_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names: queries, keys and values apart."""
    names = [
        (r"^cls_token", "vit.embeddings.cls_token"),
        (r"^pos_embed", "vit.embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
        (r"^blocks", "vit.layers"),
        (r"^norm\.", "vit.layernorm."),
        (r"^head", "classifier"),
        (r"\.norm1", ".layernorm_before"),
        (r"\.norm2", ".layernorm_after"),
        (r"\.attn\.proj", ".attention.o_proj"),
    ]
    state = _renamed(weights, names)
    for name in [name for name in state if ".attn.qkv." in name]:
        for letter, part in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[name.replace(".attn.qkv.", f".attention.{letter}_proj.")] = part
    return state


def of_vit_pytorch(architecture: Architecture, weights: Mapping[str, Tensor]) -> Peer:
    """vit-pytorch, whose maps come from its `Recorder`.

    Its own architecture differs in three things, which are set to the others' on the instance, so that the way through
    it stays its own: no norms around the patches' projection, a bias on queries, keys and values, ε = 1e-6 in norms.
    It has no fused attention.
    """
    from vit_pytorch import ViT as TheirViT
    from vit_pytorch.recorder import Recorder

    size = architecture.size

    def build() -> nn.Module:
        model = TheirViT(
            image_size=architecture.image_size,
            patch_size=architecture.patch,
            num_classes=architecture.classes,
            dim=size,
            depth=architecture.depth,
            heads=architecture.heads,
            dim_head=size // architecture.heads,
            mlp_dim=int(size * architecture.mlp_ratio),
        )
        for place, module in enumerate(model.to_patch_embedding):
            if isinstance(module, nn.LayerNorm):
                model.to_patch_embedding[place] = nn.Identity()
        for attention, _ in model.transformer.layers:
            attention.to_qkv = nn.Linear(size, 3 * size)
            if isinstance(attention.to_out, nn.Identity):  # one head of the token's size has no last projection there
                attention.to_out = nn.Sequential(nn.Linear(size, size), nn.Dropout(0.0))
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6
        return _given(model, vit_pytorch_state(weights))

    model, recorder = build(), Recorder(build().eval())
    return Peer("vit-pytorch", model, model, lambda images: recorder(images)[1].unbind(1))


def vit_pytorch_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under vit-pytorch's names; a patch's pixels lie there with their colours last."""
    names = [
        (r"^pos_embed", "pos_embedding"),
        (r"^patch_embed\.proj", "to_patch_embedding.2"),
        (r"^norm\.", "transformer.norm."),
        (r"^head", "mlp_head"),
        (r"^blocks", "transformer.layers"),
        (r"\.norm1", ".0.norm"),
        (r"\.attn\.qkv", ".0.to_qkv"),
        (r"\.attn\.proj", ".0.to_out.0"),
        (r"\.norm2", ".1.net.0"),
        (r"\.mlp\.fc1", ".1.net.1"),
        (r"\.mlp\.fc2", ".1.net.4"),
    ]
    state = _renamed(weights, names)
    for name in ("cls_token", "pos_embedding"):
        state[name] = state[name][0]
    patches = "to_patch_embedding.2.weight"
    return state | {patches: state[patches].permute(0, 2, 3, 1).flatten(1)}


def _renamed(weights: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Weights under other names, by regular expressions that are applied one after the other."""
    state = {}
    for name, weight in weights.items():
        for pattern, other in names:
            name = re.sub(pattern, other, name)
        state[name] = weight
    return state


def _given(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model with these weights, and where they are."""
    model.load_state_dict(weights)
    return model.to(next(iter(weights.values())).device)


# package -> how to build it
_OTHERS = {"timm": of_timm, "transformers": of_transformers, "vit_pytorch": of_vit_pytorch}


def peers(architecture: Architecture, device: torch.device | str = "cpu") -> list[Peer]:
    """Ours first, then those of the libraries that are installed; all with the same random weights."""
    torch.manual_seed(0)
    weights = {name: weight.to(device) for name, weight in architecture.build().state_dict().items()}
    builders = [ours, *(build for package, build in _OTHERS.items() if find_spec(package))]
    return [build(architecture, weights) for build in builders]
