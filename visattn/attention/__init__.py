"""The heart: attention mechanisms behind one contract. Depends on torch alone."""

from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.general import attend
from visattn.attention.multihead import MultiHeadSelfAttention
from visattn.attention.scores import AdditiveScore, DotScore, GeneralScore, ScaledDotScore, Score
from visattn.attention.soft import SoftAttention

__all__ = [
    "AdditiveScore",
    "DotScore",
    "GeneralScore",
    "Glimpse",
    "Memory",
    "MultiHeadSelfAttention",
    "ScaledDotScore",
    "Score",
    "SoftAttention",
    "SpatialAttention",
    "attend",
]
