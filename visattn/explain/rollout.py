"""Attention rollout: one map from many layers, by following attention back to the patches.

Each layer adds the attended values to its tokens. With rows that sum to 1 this is row i of (A + I) / (its sum), where A
is the layer's attention with fused heads. The layers' matrices are multiplied, the last on the left.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from visattn.errors import InputError, require_choice, require_number
from visattn.explain.calls import AttentionCall
from visattn.explain.layered import Layered
from visattn.explain.layered_rollout import layered_rollout
from visattn.explain.vit import Logits, Reading, ViT

Fusion = Literal["mean", "max", "min"]


def fuse(weights: Tensor, fusion: Fusion = "mean") -> Tensor:
    """One matrix of all heads: (B, heads, N, M) to (B, N, M)."""
    fused: dict[Fusion, Callable[..., Tensor]] = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
    return fused[fusion](weights, dim=1)


def discard_smallest(matrix: Tensor, share: float) -> Tensor:
    """The matrices (B, N, M) with the smallest entries of each, ⌊share · N M⌋ of them, set to 0."""
    count = int(share * matrix[0].numel())
    if not count:
        return matrix
    smallest = matrix.flatten(1).topk(count, dim=1, largest=False, sorted=False).indices
    return matrix.flatten(1).scatter(1, smallest, 0.0).view_as(matrix)


def with_residual(matrix: Tensor) -> Tensor:
    """A (B, N, N), not negative, to (A + I), each row divided by its own sum."""
    passed = matrix + torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    return passed / passed.sum(dim=-1, keepdim=True)


def passed_on(weights: Tensor, fusion: Fusion = "mean", discard: float = 0.0) -> Tensor:
    """A layer's weights (B, heads, N, N) as a rollout matrix (B, N, N) whose rows sum to 1."""
    return with_residual(discard_smallest(fuse(weights, fusion), discard))


def rollout(layers: Iterable[Tensor], fusion: Fusion = "mean", discard: float = 0.0) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, section 3): the contribution of each token through all layers.

    With "mean" and no discarding this is the paper's method, A = (W + I) / 2. Taking the largest or smallest weight of
    the heads, and discarding the smallest weights, are from Gildenblat ("Exploring Explainability for Vision
    Transformers", 2020); his code divides by the sum of another row, so that rows no longer sum to 1. Here they do.

    Args:
        layers: (B, heads, N, N) weights of each layer, first layer first; none is stored.
        fusion: how heads are combined.
        discard: share of the smallest weights of each layer and image that is set to 0; below 1.

    Returns:
        (B, N, N), rows sum to 1.
    """
    passed = (passed_on(weights, fusion, discard) for weights in layers)
    return functools.reduce(lambda out, layer: layer @ out, passed)


@dataclass(frozen=True)
class _OverHeads:
    """Base of rollouts: combines a layer's heads into one matrix."""

    fusion: Fusion = "mean"
    discard: float = 0.0

    def __post_init__(self) -> None:
        require_choice("the fusion of heads", self.fusion, get_args(Fusion))
        require_number("the share to discard", self.discard, least=0, below=1)

    def _options(self) -> list[str]:
        """Deviations from the paper."""
        fused = [] if self.fusion == "mean" else [f"{self.fusion} of heads"]
        return fused + ([f"{self.discard:.0%} discarded"] if self.discard else [])


@dataclass(frozen=True)
class Rollout(_OverHeads):
    """`rollout` of all layers, in the rows of the class tokens.

    Args:
        fusion: how heads are combined.
        discard: share of each layer's weights that is set to 0.

    Raises:
        InputError: if an option is out of its range.
    """

    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) to maps (B, H, W); the same for every class."""
        return vit.read_together(images, [self.reading(vit)])[1][0]

    def reading(self, vit: ViT) -> Reading:
        """The same, for a run shared with other readings."""
        vit.require("attention rollout")
        if isinstance(vit, Layered):
            if self.discard:
                raise InputError(f"--discard needs the matrices of layers, and {vit.name} is followed row by row")
            return layered_rollout(vit, functools.partial(fuse, fusion=self.fusion))
        if vit.signed:
            raise InputError(
                f"the weights of {vit.name} are differences of two softmaxes, which may be negative, so attention "
                "rollout is not defined; choose raw, or relevance"
            )
        out: Tensor | None = None
        weights: Tensor | None = None

        def on_call(layer: int, call: AttentionCall) -> None:
            nonlocal out, weights
            weights = call.weights(into=weights)  # one buffer for all layers
            passed = passed_on(weights, self.fusion, self.discard)
            out = passed if out is None else passed @ out

        def result(seen: Logits) -> Tensor:
            assert out is not None  # each model has layers
            return vit.read(out, seen)

        return Reading(on_call, result)

    def __str__(self) -> str:
        return ", ".join(["attention rollout", *self._options()])


@dataclass(frozen=True)
class GradientRollout(_OverHeads):
    """Rollout of (∇A ∘ A)⁺ instead of A, where ∇A is the gradient of the class logit (Gildenblat 2020).

    Heads are fused before negative values are clipped, as in his code; each layer is multiplied by its own gradient,
    which his code does not do. Gradients are small compared with the residual's 1, so rows stay mostly on their token.
    """

    @torch.no_grad()
    def __call__(self, vit: ViT, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, h, w) and classes (B,), by default the likeliest, to maps (B, H, W)."""
        vit.require("gradient rollout")
        judged = vit.judged(images, targets)
        with torch.autocast(images.device.type, enabled=False):
            parts = (fuse(call.weights().mul_(call.gradient(of)), self.fusion) for call, of in judged.layers)
            out = rollout((part.clamp_(min=0).unsqueeze(1) for part in parts), discard=self.discard)
            return vit.read(out, judged.seen)

    def __str__(self) -> str:
        return ", ".join(["gradient rollout", *self._options()])
