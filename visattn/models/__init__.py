"""Networks; they depend on torch and timm, not on Lightning, data or plots."""

from visattn.models.decoder import Decoder
from visattn.models.encoder import Encoder
from visattn.models.ensemble import Ensemble, EnsembleMemory
from visattn.models.glimpses import (
    CentrePolicy,
    ContextNetwork,
    GaussianPolicy,
    GlimpseModel,
    GlimpseNetwork,
    GridPolicy,
    LocationPolicy,
    RandomPolicy,
    Retina,
    Sensor,
    WholeView,
)
from visattn.models.grid_encoder import Annotations, GridEncoder
from visattn.models.lstm_decoder import LSTMDecoder, LuongDecoder, RecurrentDecoder
from visattn.models.normalise import Normalise
from visattn.models.stem import ConvolutionalStem
from visattn.models.transformer_decoder import TransformerDecoder
from visattn.models.vit import PatchEmbedding, VisionTransformer

__all__ = [
    "Annotations",
    "CentrePolicy",
    "ContextNetwork",
    "ConvolutionalStem",
    "Decoder",
    "Encoder",
    "Ensemble",
    "EnsembleMemory",
    "GaussianPolicy",
    "GlimpseModel",
    "GlimpseNetwork",
    "GridEncoder",
    "GridPolicy",
    "LSTMDecoder",
    "LocationPolicy",
    "LuongDecoder",
    "Normalise",
    "PatchEmbedding",
    "RandomPolicy",
    "RecurrentDecoder",
    "Retina",
    "Sensor",
    "TransformerDecoder",
    "VisionTransformer",
    "WholeView",
]
