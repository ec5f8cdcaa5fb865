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

__all__ = [
    "AdditiveScore",
    "DotScore",
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
    "SpatialAttention",
    "UniformWeights",
    "ablated",
    "attend",
]
