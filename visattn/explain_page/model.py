"""Which models the page can run, and what it needs of them."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import timm.layers
import torch
from torch import Tensor, nn

from visattn.attention import MultiHeadSelfAttention
from visattn.errors import InputError
from visattn.export import ExportedCaptioner, ExportedClassifier
from visattn.export.folder import WEIGHTS, write_weights
from visattn.fast.linear import Linear
from visattn.images.geometry import PAD_COLOUR
from visattn.models import ConvolutionalStem, PatchEmbedding, VisionTransformer
from visattn.models.stem import Residual
from visattn.models.vit import MLP, Block

MOST_BYTES = 10_500_000  # of weights, in half precision: the page then stays below 16 MB
# All that the page's script computes; a subclass may compute something else.
_KNOWN = {
    *(VisionTransformer, PatchEmbedding, ConvolutionalStem, Residual, Block, MLP, MultiHeadSelfAttention, Linear),
    *(nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.Sequential, nn.Identity, timm.layers.DropPath),
}


class Runnable(NamedTuple):
    """A model that the page can run.

    Attributes:
        sizes: what the script needs to know of it, JSON values.
        weights: a safetensors file in half precision.
        exported: the model as the page has it, its weights rounded to half precision.
        parameters: number of its weights.
    """

    sizes: dict[str, Any]
    weights: bytes
    exported: ExportedClassifier
    parameters: int

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, h, w) uint8."""
        return self.exported.model(self.exported.normalise(images))


def runnable(exported: ExportedClassifier | ExportedCaptioner, option: str) -> Runnable:
    """A model for the page.

    Args:
        exported: the model; it is not changed.
        option: the option that names it and its value, for messages.

    Raises:
        InputError: if the page cannot run it: it is no classifier, or has parts other than those of
            `VisionTransformer`, weights that half precision cannot represent, or too many of them.
    """
    if isinstance(exported, ExportedCaptioner):
        raise InputError(f"{option} is a captioner; the page runs Vision Transformers, such as vit-cifar10")
    model = exported.model
    for name, module in model.named_modules():
        if type(module) not in _KNOWN:
            part = f"has a {type(module).__name__} ({name})" if name else f"is a {type(module).__name__}"
            raise InputError(f"{option} {part}, which the page cannot run; choose a plain Vision Transformer")
    assert isinstance(model, VisionTransformer)  # by its type, above
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if 2 * parameters > MOST_BYTES:
        raise InputError(
            f"{option} has {parameters / 1e6:.1f} million weights, too many for a page of 16 MB; choose a model of at "
            f"most {MOST_BYTES / 2e6:.1f} million"
        )
    half = exported._replace(model=copy.deepcopy(model).eval())
    try:
        with TemporaryDirectory() as folder:
            write_weights(Path(folder), half, torch.float16)
            weights = (Path(folder) / WEIGHTS).read_bytes()
    except InputError as error:
        raise InputError(f"{option} cannot be stored in half precision: {error}") from error
    for tensor in half.model.state_dict().values():
        if tensor.is_floating_point():
            if not tensor.isfinite().all():
                raise InputError(f"{option} has weights that are not finite; its training failed")
            tensor.copy_(tensor.half())
    return Runnable(_sizes(half, model), weights, half, parameters)


def _sizes(exported: ExportedClassifier, model: VisionTransformer) -> dict[str, Any]:
    embed = model.patch_embed
    norms = [module for module in embed.modules() if isinstance(module, nn.BatchNorm2d)]
    mean, std = (values.flatten().tolist() for values in (exported.normalise.mean, exported.normalise.std))
    return {
        "names": exported.class_names,
        "classes": len(exported.class_names),
        "imageSize": list(exported.image_size),
        "fit": exported.fit,
        "mean": mean,
        "std": std,
        "margin": list(PAD_COLOUR),
        "neutral": [min(255, max(0, round(255 * value))) for value in mean],
        "patch": model.patch,
        "grid": list(model.grid),
        "size": model.cls_token.shape[-1],
        "depth": len(model.blocks),
        "heads": model.blocks[0].attn.heads,
        "eps": model.norm.eps,
        "halvings": 0 if isinstance(embed, PatchEmbedding) else model.patch.bit_length() - 1,
        "stemEps": norms[0].eps if norms else 0,
    }
