"""Conservative layer-wise relevance propagation.

Ali et al. 2022, "XAI for Transformers: Better Explanations through Conservative Propagation".

Gradient × input conserves relevance layer by layer where layers are linear in what relevance flows through. Hence what
makes a transformer nonlinear is held constant in the backward pass: attention weights (their AH rule), so relevance
flows through values alone, the standard deviation in a LayerNorm (their LN rule), and in the same way the length that
features are divided by before they are compared with a text. Elementwise activations hand their relevance on unchanged
(Bach et al. 2015): f(x) counts as x times the constant f(x) / x. Of a product of two activations, as in gated MLPs,
either takes half (Achtibat et al. 2024).

The class logit is then the sum of the relevance of pixels and of everything added to them: biases, position embeddings
and the class token. The map has the pixels' part. Outputs do not change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from visattn.explain.pixels import by_cell, pixel_gradient
from visattn.explain.vit import ViT

_CONSTANT = {torch.softmax, F.softmax, Tensor.softmax, torch.sigmoid, Tensor.sigmoid, F.sigmoid, torch.rsqrt}
_CONSTANT |= {Tensor.rsqrt, F.hardsigmoid, torch.norm, Tensor.norm, torch.linalg.vector_norm}
_ACTIVATIONS = {F.gelu, F.silu, F.mish, F.hardswish, F.elu, F.leaky_relu, F.softplus}
_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__}


class ConservativeRules(TorchFunctionMode):
    """Within it, gradient × input is conservative relevance; outputs are the same up to rounding."""

    def __torch_function__(
        self, function: Callable[..., Any], kinds: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _CONSTANT:
            return function(*args, **kwargs).detach()
        if function in _ACTIVATIONS:
            return _passed_on(args[0], function(*args, **kwargs))
        if function is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask")
            given = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
            constant = {name: part.detach() if isinstance(part, Tensor) else part for name, part in given.items()}
            rest = {name: part for name, part in kwargs.items() if name not in names}
            return function(**{**constant, "value": given["value"]}, **rest)
        if function is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if function is F.rms_norm:
            return _passed_on(args[0], function(*args, **kwargs))
        if function in _PRODUCTS and all(_flows(part) for part in args[:2]):
            return function(_half(args[0]), _half(args[1]), *args[2:], **kwargs)
        return function(*args, **kwargs)


def _flows(part: Any) -> bool:
    """Whether relevance flows through it: it comes from the pixels, and is no parameter nor a number made of some."""
    return isinstance(part, Tensor) and part.requires_grad and not part.is_leaf and part.dim() > 0


def _half(x: Tensor) -> Tensor:
    return x / 2 + (x / 2).detach()


def _passed_on(x: Tensor, out: Tensor) -> Tensor:
    """`out`, an elementwise function of x, as x times a constant."""
    return x * torch.where(x == 0, 0.0, out / x).detach()


def _layer_norm(
    x: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.layer_norm`, whose arguments these are, with a constant standard deviation."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(dim=dims, keepdim=True)
    out = centred * (centred.square().mean(dim=dims, keepdim=True) + eps).rsqrt().detach()
    out = out if weight is None else out * weight.detach()
    return out if bias is None else out + bias


@dataclass(frozen=True)
class LRP:
    """Relevance of the pixels, summed over the cells: positive speaks for the class, negative against it."""

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W).

        Raises:
            InputError: if the model has no classes, or no such class.
        """
        with ConservativeRules():
            gradient, _ = pixel_gradient(vit, images, targets)
        return by_cell((gradient * images).sum(dim=1), vit)

    def __str__(self) -> str:
        return "conservative LRP"
