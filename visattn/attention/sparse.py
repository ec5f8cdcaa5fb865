"""Soft attention whose weights can be exactly zero: sparsemax and 1.5-entmax instead of the softmax."""

import torch
from torch import Tensor

from visattn.attention.soft import SoftAttention


class SparsemaxAttention(SoftAttention):
    """α = sparsemax(e) (Martins and Astudillo 2016): the point of the simplex that is nearest to the scores."""

    def distribution(self, scores: Tensor) -> Tensor:
        return sparsemax(scores)


class EntmaxAttention(SoftAttention):
    """α = 1.5-entmax(e) (Peters et al. 2019), between softmax and sparsemax."""

    def distribution(self, scores: Tensor) -> Tensor:
        return entmax15(scores)


def sparsemax(scores: Tensor) -> Tensor:
    """Scores (…, L) to weights max(e − τ, 0) that sum to 1 (Martins and Astudillo 2016, algorithm 1)."""
    z = _shifted(scores)
    sorted_, count = _sorted(z)
    support = sorted_ * count > sorted_.cumsum(dim=-1) - 1
    inside, size = _support(z, sorted_, support)
    return (z - (torch.where(inside, z, 0).sum(dim=-1, keepdim=True) - 1) / size).clamp(min=0)


def entmax15(scores: Tensor) -> Tensor:
    """Scores (…, L) to weights max(e / 2 − τ, 0)² that sum to 1 (Peters et al. 2019, algorithm 2)."""
    z = _shifted(scores / 2)
    sorted_, count = _sorted(z)
    mean, square = sorted_.cumsum(dim=-1) / count, sorted_.square().cumsum(dim=-1) / count
    threshold = mean - ((1 - count * (square - mean.square())) / count).clamp(min=0).sqrt()
    inside, size = _support(z, sorted_, threshold <= sorted_)
    mean = torch.where(inside, z, 0).sum(dim=-1, keepdim=True) / size
    spread = torch.where(inside, z - mean, 0).square().sum(dim=-1, keepdim=True)
    return (z - mean + ((1 - spread) / size).clamp(min=1e-12).sqrt()).clamp(min=0).square()


def _shifted(scores: Tensor) -> Tensor:
    """Scores below 0, the largest 0; none below −2, where weights are 0 anyway, so that masked ones stay finite."""
    return (scores - scores.amax(dim=-1, keepdim=True)).clamp(min=-2)


def _sorted(z: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in falling order, and the numbers from 1 to L. Which places have weight is decided without gradients."""
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    return z.detach().sort(dim=-1, descending=True).values, count


def _support(z: Tensor, sorted_: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Where a place has weight, (…, L), and how many have, (…, 1); `among` says it of the sorted scores."""
    size = among.sum(dim=-1, keepdim=True)
    return z.detach() >= sorted_.gather(-1, size - 1), size
