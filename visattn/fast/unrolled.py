"""A linear layer in a loop, with the gradient of its weight computed once for all steps."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visattn.fast.conversion import working_precision
from visattn.fast.linear import linear


class Unrolled:
    """yₜ = aₜ + W xₜ over the steps of a loop, where all aₜ are known in advance, but xₜ only at step t.

    With autograd, each step adds a product of few rows, as large as W, to the gradient of W. But ∂L/∂W = Σₜ gₜ xₜᵀ,
    where gₜ = ∂L/∂yₜ = ∂L/∂aₜ. All of these are known after the loop's backward pass, so a single product suffices.

    Args:
        given: (N, T, G) aₜ.
        weight: (G, F) W.
    """

    def __init__(self, given: Tensor, weight: Tensor) -> None:
        self._inputs: list[Tensor] = []
        self._weight = working_precision(weight.detach())
        self._given = _WeightOfAllSteps.apply(given, weight, self._inputs).unbind(dim=1)

    def __call__(self, t: int, inputs: Tensor) -> Tensor:
        """yₜ (N, G) from xₜ (N, F); call it once per step, in order."""
        self._inputs.append(inputs.detach())
        return self._given[t] + linear(inputs, self._weight)


class _WeightOfAllSteps(torch.autograd.Function):
    """Returns aₜ unchanged; backward, it computes the gradient of W from the inputs collected in the loop."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.dtype = inputs, weight.dtype
        return given.view_as(given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        of_weight = None
        if ctx.needs_input_grad[1]:
            inputs = torch.stack(ctx.inputs, dim=1).to(gradient.dtype)
            of_weight = linear(gradient.flatten(0, 1).T, inputs.flatten(0, 1).T).to(ctx.dtype)
        return gradient, of_weight, None
