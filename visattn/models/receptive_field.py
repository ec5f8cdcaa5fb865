"""Where does a cell of a feature map really look? Not always at the middle of its cell."""

import copy

import torch
from torch import Tensor, nn

_GATES = ("SE", "SqueezeExcite", "EffectiveSE", "Eca", "GlobalResponse")  # timm's: they weigh channels, not places


def centre_shift(body: nn.Module, image_size: tuple[int, int]) -> tuple[float, float]:
    """How far the receptive field's centre lies from the middle of its cell, in input pixels, (vertical, horizontal).

    A 3×3 convolution of stride 2 with one pixel of padding on each side is centred on pixel 2i, half a pixel before the
    middle of pixels 2i and 2i + 1. Five of them in a row, as in a ResNet, shift a cell of 32 pixels by 15.5 pixels to
    the upper left; TensorFlow's padding, kept by timm's `tf_…` models, shifts it as far to the lower right. A map drawn
    on a plain grid is off by that much.

    The centre is that of the receptive field when every kernel counts all its pixels alike: norms, gates and
    activations are left out, kernels are made even, and the centroid of the gradient of one cell in the middle of a
    large picture is taken. Patches that do not overlap, as in a Vision Transformer, are where they seem to be.

    Args:
        body: a timm feature extractor with one feature map; it is not changed.
        image_size: (h, w) of its input. TensorFlow's padding depends on the size.
    """
    if any("Attention" in type(module).__name__ for module in body.modules()):
        return 0.0, 0.0
    with torch.inference_mode(False), torch.enable_grad():  # asked for in the middle of a validation, too
        return _measured(body, image_size)


def _measured(body: nn.Module, image_size: tuple[int, int]) -> tuple[float, float]:
    even = _evened(copy.deepcopy(body).float().cpu())
    # Far enough from the borders for most receptive fields, and alike modulo every power of two up to the stride.
    size = [n + 64 * max(0, -(-(640 - n) // 64)) for n in image_size]
    pixels = torch.ones(1, 3, *size, requires_grad=True)
    (features,) = even(pixels)
    height, width = features.shape[-2:]
    row, column = height // 2, width // 2
    (gradient,) = torch.autograd.grad(features[0, :, row, column].sum(), pixels)
    weights = gradient[0].sum(0).double()
    centre = [_centroid(weights.sum(dim=1 - axis)) for axis in (0, 1)]
    strides = [round(n / cells) for n, cells in zip(size, (height, width), strict=True)]
    return tuple(float(c - (i + 0.5) * stride) for c, i, stride in zip(centre, (row, column), strides, strict=True))


def _centroid(weights: Tensor) -> Tensor:
    return (weights * (torch.arange(len(weights)) + 0.5)).sum() / weights.sum()


def _evened(module: nn.Module) -> nn.Module:
    """The same layout of kernels, all of them averages, and nothing between them."""
    for name, child in module.named_children():
        kind = type(child).__name__
        if isinstance(child, nn.MaxPool2d):
            options = {"stride": child.stride, "padding": child.padding, "ceil_mode": child.ceil_mode}
            setattr(module, name, nn.AvgPool2d(child.kernel_size, **options))
        elif ("Norm" in kind and "Conv" not in kind) or kind.startswith(_GATES):
            setattr(module, name, nn.Identity())
        else:
            _evened(child)
            for parameter in child.parameters(recurse=False):
                nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
                parameter.requires_grad_(False)
    return module.eval()
