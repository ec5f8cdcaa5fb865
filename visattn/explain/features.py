"""The features of a Vision Transformer's patches: principal components, similarity to one patch, norms of all tokens.

The features of a layer are what its block gives on, in the residual stream, before the model's last norm.

Axis letters: B images, L layers, N = prefix + H W tokens, the grid's in reading order after the prefix, D the size of a
token.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.place import require_one_grid
from visattn.explain.vit import ViT

ARTEFACT = 3.0
"""A patch whose norm is above so many times the median is taken for an artefact; see `artefacts`."""
ENDS = (2.0, 98.0)
"""Percentiles of a component at the two ends of a colour's scale."""


class Features(NamedTuple):
    """What is kept of a run.

    Attributes:
        patches: (B, H W, D) float32, a layer's features of the patches.
        norms: (B, L, N) float32, the Euclidean norm of every token in every layer.
        grid: (H, W).
    """

    patches: Tensor
    norms: Tensor
    grid: tuple[int, int]


class Components(NamedTuple):
    """Principal components of features.

    Attributes:
        mean: (D,) float32.
        vectors: (3, D) float32, orthonormal, largest variance first, each with the sign that makes its entry of largest
            magnitude positive; 0 where there are fewer than three.
        explained: (3,) float32, each one's share of the variance.
    """

    mean: np.ndarray
    vectors: np.ndarray
    explained: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """Features (…, D) to their coordinates (…, 3), float32."""
        return (features - self.mean) @ self.vectors.T


@contextmanager
def watched(vit: ViT, on_layer: Callable[[int, Tensor], None]) -> Iterator[None]:
    """A context in which `on_layer` is called with each layer's number and its output (B, N, D), while the model runs.

    Raises:
        InputError: if the layers do not share one grid, or their modules are not known.
    """
    require_one_grid(vit, "reading its patches' features")
    if len(vit.blocks) != vit.depth:
        raise InputError(f"the modules of the {vit.depth} layers of {vit.name} are not known, so no features are read")

    def call(layer: int, module: nn.Module, given: Any, out: Any) -> None:
        on_layer(layer, out[0] if isinstance(out, tuple) else out)

    with ExitStack() as hooks:
        for layer, block in enumerate(vit.blocks):
            hooks.enter_context(block.register_forward_hook(functools.partial(call, layer)))
        yield


def _require_tokens(vit: ViT, tokens: Tensor, images: Tensor) -> None:
    height, width = vit.grid((images.shape[-2], images.shape[-1]))
    expected = (len(images), vit.prefix + height * width)
    if tuple(tokens.shape[:-1]) != expected:
        raise InputError(
            f"a layer of {vit.name} gives tokens of shape {tuple(tokens.shape)}, where {expected[0]} images with "
            f"{expected[1]} tokens each were expected, so no features are read"
        )


@torch.no_grad()
def hidden_states(vit: ViT, images: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """What each layer gives on: normalised images (B, 3, h, w) to (B, L, N, D), float32.

    The model runs as it always does; its output is not changed.

    Args:
        vit: the model.
        images: on the model's device.
        layers: their numbers, in this order; None for all.

    Raises:
        InputError: if there is no such layer, the layers do not share one grid, or one does not give all tokens.
    """
    chosen = [vit.layer(number) for number in (range(vit.depth) if layers is None else layers)]
    kept: dict[int, Tensor] = {}

    def on_layer(layer: int, tokens: Tensor) -> None:
        if layer in chosen:
            _require_tokens(vit, tokens, images)
            kept[layer] = tokens.detach().float()

    with watched(vit, on_layer):
        vit.run(images, lambda *_: None)
    return torch.stack([kept[layer] for layer in chosen], dim=1)


@torch.no_grad()
def features(vit: ViT, images: Tensor, layer: int = -1) -> Features:
    """The patches' features in one layer, and the norms of all tokens in all layers, of one run.

    Memory is that of one layer: of the others only norms are kept.

    Args:
        vit: the model.
        images: normalised (B, 3, h, w), on the model's device.
        layer: from 0; -1 is the last.

    Raises:
        InputError: as `hidden_states`.
    """
    chosen = vit.layer(layer)
    patches: list[Tensor] = []
    norms: dict[int, Tensor] = {}

    def on_layer(number: int, tokens: Tensor) -> None:
        _require_tokens(vit, tokens, images)
        tokens = tokens.detach().float()
        norms[number] = tokens.norm(dim=-1)
        if number == chosen:
            patches.append(tokens[:, vit.prefix :])

    with watched(vit, on_layer):
        seen = vit.run(images, lambda *_: None)
    return Features(patches[0], torch.stack([norms[number] for number in range(vit.depth)], dim=1), seen.grid)


def principal_components(features: np.ndarray) -> Components:
    """The first three principal components of features (n, D), from the eigenvectors of their covariance in float64."""
    given = torch.from_numpy(np.asarray(features, dtype=np.float64))
    mean = given.mean(dim=0)
    centred = given - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred)  # smallest first
    count = min(3, len(vectors), max(len(given) - 1, 0))
    first = vectors.flip(-1).T[:count]
    largest = first.gather(1, first.abs().argmax(dim=1, keepdim=True))
    signed = torch.zeros(3, given.shape[1], dtype=torch.float64)
    signed[:count] = first * largest.sign()
    shares = torch.zeros(3, dtype=torch.float64)
    if (total := centred.square().sum()) > 0:
        shares[:count] = variances.flip(-1)[:count].clamp(min=0) / total
    mean, signed, shares = (part.float() for part in (mean, signed, shares))
    return Components(mean.numpy(), signed.numpy(), shares.numpy())


def colour_ends(coordinates: np.ndarray) -> np.ndarray:
    """The ends (2, 3) of the colours' scales: the percentiles `ENDS` of coordinates (…, 3), each component's own."""
    return np.percentile(coordinates.reshape(-1, 3), ENDS, axis=0).astype(np.float32)


def colours(coordinates: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Coordinates (…, 3) as red, green and blue from 0 to 1, float32; ½ where both ends are equal.

    Args:
        coordinates: as `Components.of` returns them.
        ends: (2, 3), as `colour_ends` returns them; what is beyond is clipped.
    """
    span = ends[1] - ends[0]
    flat = span <= 1e-6 * np.abs(ends).max()
    scaled = (coordinates - ends[0]) / np.where(flat, 1, span)
    return np.where(flat, 0.5, np.clip(scaled, 0, 1)).astype(np.float32)


def similarity(features: np.ndarray, cell: int) -> np.ndarray:
    """The cosine of features (n, D) and those of one of them, (n,) float32; 0 where a feature is 0."""
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    unit = features / np.maximum(norms, np.finfo(np.float32).tiny)
    return np.clip(unit @ unit[cell], -1, 1).astype(np.float32)


def artefacts(norms: np.ndarray, times: float = ARTEFACT) -> np.ndarray:
    """Which patches have norms above so many times the median: (n,) to (n,) bool.

    Darcet et al. 2024, "Vision Transformers Need Registers" (section 2.1), find patches without content of their own
    that large models use as a store of global information, about 2% of all, with ten times the norm of the others.
    They part them by an absolute norm, 150 for DINOv2 ViT-g, chosen by hand between the two heaps of the histogram.
    Norms of other models differ, so here the norm is relative to the image's median, and 3 is as arbitrary as their
    150.

    Args:
        norms: of the patches of one image in one layer.
        times: how many times the median.
    """
    return norms > times * np.median(norms)


def norms_by_layer(norms: np.ndarray, vit: ViT) -> Mapping[str, np.ndarray]:
    """Norms (L, N) of one image to a line (L,) for the median and the largest patch, the class tokens and registers.

    Of several registers it is the mean.
    """
    patches, classes = norms[:, vit.prefix :], vit.prefix - vit.registers
    lines = {"largest patch": patches.max(axis=1), "median patch": np.median(patches, axis=1)}
    lines |= {name: norms[:, n] for n, name in enumerate(("class token", "distillation token")[:classes])}
    if vit.registers:
        lines["registers, mean"] = norms[:, classes : vit.prefix].mean(axis=1)
    return lines
