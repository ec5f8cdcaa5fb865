"""Words out of a decoder: one loop over `step`, whatever the decoder and the way to choose."""

from visattn.decoding.captions import Caption, captions
from visattn.decoding.loop import Decoded, decode
from visattn.decoding.search import BeamSearch, Choice, Greedy, Sampling, Search, likeliest

__all__ = [
    "BeamSearch",
    "Caption",
    "Choice",
    "Decoded",
    "Greedy",
    "Sampling",
    "Search",
    "captions",
    "decode",
    "likeliest",
]
