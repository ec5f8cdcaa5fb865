"""y = x Wᵀ + b in float32 by oneDNN, on CPUs where PyTorch's default reaches only half of the speed.

PyTorch uses MKL for linear layers in float32, which uses AVX2 on AMD's processors even if they have AVX-512. oneDNN,
which PyTorch uses for convolutions and bfloat16, uses AVX-512. Both compute in float32, and differ only in the order of
sums. `VISATTN_ONEDNN=0` in the environment keeps PyTorch's choice, `VISATTN_ONEDNN=1` uses oneDNN on any CPU;
`VISATTN_FAST=0` overrides both.
"""

import functools
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from visattn.fast import enabled

_SMALLEST = 2**20  # multiplications; below, oneDNN's overhead is larger than its gain


class Linear(nn.Linear):
    """`torch.nn.Linear` with `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: x (…, in), weight (out, in) and bias (out) to (…, out)."""
    if not _pays(x, weight):
        return F.linear(x, weight, bias)
    rows = x.flatten(0, -2)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        y = _Linear.apply(rows, weight, bias)
    else:
        y = _product(rows, weight, bias)
    return y.unflatten(0, x.shape[:-1])


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # the compiler makes its own choice, and graphs must run elsewhere
        and not torch._C._are_functorch_transforms_active()  # they have no rule for the operator
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and x.ndim > 1
        and x.numel() * weight.shape[0] >= _SMALLEST
        and onednn_is_taken()
    )


def onednn_is_taken() -> bool:
    """Whether linear layers in float32 use oneDNN: on AMD's CPUs with AVX-512, unless the environment overrides it."""
    wish = os.environ.get("VISATTN_ONEDNN")
    return enabled() and wish != "0" and _onednn_is_there() and (wish == "1" or _mkl_takes_half())


@functools.cache
def _onednn_is_there() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _mkl_takes_half() -> bool:
    if not torch.backends.mkl.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` for matrices, which may be transposed, with the operator that PyTorch's compiler uses."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """`_product` with derivatives, computed by `linear`, so that they are differentiable, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.T) if of_x else None,
            linear(gradient.T, x.T) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> Tensor | int:
        x, weight = ctx.saved_tensors
        by_x = 0 if of_x is None else linear(of_x, weight)
        by_weight = 0 if of_weight is None else linear(x, of_weight)
        return by_x + by_weight + (0 if of_bias is None else of_bias)


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]
