"""Attention mechanisms with a common interface. Depends on torch only."""

from visattn.attention.ablated import ShuffledWeights, UniformWeights, ablated
from visattn.attention.contract import Glimpse, Memory, SpatialAttention
from visattn.attention.final import FinalStateAttention
from visattn.attention.general import attend
from visattn.attention.hard import HardAttention, SampledMemory, prescribed
from visattn.attention.local import LocalAttention, MonotonicLocalAttention, PredictiveLocalAttention
from visattn.attention.mean import MeanAttention
from visattn.attention.multihead import HeadsMemory, MultiHeadAttention, MultiHeadSelfAttention
from visattn.attention.relaxations import (
    GumbelSoftmax,
    ReinMax,
    Relaxation,
    StraightThrough,
    StraightThroughGumbel,
)
from visattn.attention.scores import AdditiveScore, DotScore, GeneralScore, LocationScore, ScaledDotScore, Score
from visattn.attention.sentinel import SentinelAttention, WholeAttention
from visattn.attention.sigmoid import SigmoidAttention
from visattn.attention.soft import SoftAttention
from visattn.attention.sparse import EntmaxAttention, SparsemaxAttention, entmax15, sparsemax

__all__ = [
    "AdditiveScore",
    "DotScore",
    "EntmaxAttention",
    "FinalStateAttention",
    "GeneralScore",
    "Glimpse",
    "GumbelSoftmax",
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
    "ReinMax",
    "Relaxation",
    "SampledMemory",
    "ScaledDotScore",
    "Score",
    "SentinelAttention",
    "ShuffledWeights",
    "SigmoidAttention",
    "SoftAttention",
    "SparsemaxAttention",
    "SpatialAttention",
    "StraightThrough",
    "StraightThroughGumbel",
    "UniformWeights",
    "WholeAttention",
    "ablated",
    "attend",
    "entmax15",
    "prescribed",
    "sparsemax",
]
