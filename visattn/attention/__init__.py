"""Attention mechanisms with a common interface. Depends on torch only."""

from visattn.attention.ablated import ShuffledWeights, UniformWeights, ablated
from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.general import attend
from visattn.attention.hard import HardAttention
from visattn.attention.local import LocalAttention, MonotonicLocalAttention, PredictiveLocalAttention
from visattn.attention.mean import MeanAttention
from visattn.attention.multihead import HeadsMemory, MultiHeadAttention, MultiHeadSelfAttention
from visattn.attention.scores import AdditiveScore, DotScore, GeneralScore, LocationScore, ScaledDotScore, Score
from visattn.attention.soft import SoftAttention
from visattn.attention.sparse import EntmaxAttention, SparsemaxAttention, entmax15, sparsemax

__all__ = [
    "AdditiveScore",
    "DotScore",
    "EntmaxAttention",
    "GeneralScore",
    "Glimpse",
    "HardAttention",
    "HeadsMemory",
    "LocalAttention",
    "LocationScore",
    "MeanAttention",
    "Memory",
    "MonotonicLocalAttention",
    "MultiHeadAttention",
    "MultiHeadSelfAttention",
    "PredictiveLocalAttention",
    "ScaledDotScore",
    "Score",
    "ShuffledWeights",
    "SoftAttention",
    "SparsemaxAttention",
    "SpatialAttention",
    "UniformWeights",
    "ablated",
    "attend",
    "entmax15",
    "sparsemax",
]
