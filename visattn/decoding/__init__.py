"""Decoding: one loop over `step`, for any decoder and any search method."""

from visattn.decoding.captioner import Captioning, CaptionModel
from visattn.decoding.captions import Caption, captions
from visattn.decoding.loop import Decoded, decode
from visattn.decoding.search import BeamSearch, Choice, Greedy, Sampling, Search, likeliest

__all__ = [
    "BeamSearch",
    "Caption",
    "CaptionModel",
    "Captioning",
    "Choice",
    "Decoded",
    "Greedy",
    "Sampling",
    "Search",
    "captions",
    "decode",
    "likeliest",
]
