"""Soft attention with a sigmoid in place of the exponential, so that many places can share a large weight."""

from torch import Tensor
from torch.nn import functional as F

from visattn.attention.soft import SoftAttention


class SigmoidAttention(SoftAttention):
    """αᵢ = σ(eᵢ) / Σⱼ σ(eⱼ) ("smoothing", Chorowski et al. 2015, section 2.3).

    A large score saturates, so it cannot drive all other places to zero: attention to several places at once stays
    even, where the softmax would pick the largest.
    """

    def distribution(self, scores: Tensor) -> Tensor:
        return F.logsigmoid(scores).softmax(dim=-1)  # the same, and finite where every σ(e) underflows
