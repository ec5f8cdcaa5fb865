"""Settings of faithfulness measurements."""

from typing import NamedTuple

from torch import Tensor

from visattn.explain.faithfulness import Units

SUBSTRATES = ("blur", "grey")
RANDOM, CENTRE = "random maps", "distance to the centre"  # what maps are compared with


class Example(NamedTuple):
    """An input image.

    Attributes:
        id: its name.
        image: (3, h, w) uint8 of the model's input size.
        references: tokenised captions, if there are any.
    """

    id: str
    image: Tensor
    references: list[list[str]]


class Settings(NamedTuple):
    """Settings of a measurement.

    Attributes:
        methods: names of the maps.
        units: what is deleted and inserted, "pixels" or "cells".
        steps: of a curve.
        substrate: starting image of insertion.
        seeds: number of random maps per image, and of shuffles of α.
        seed: the first seed.
        batch_size: images per forward pass.
        precision: "32", or "bf16" for mixed precision, which is several times as fast on some CPUs.
    """

    methods: tuple[str, ...]
    units: Units = "pixels"
    steps: int = 32
    substrate: str = "blur"
    seeds: int = 5
    seed: int = 0
    batch_size: int = 32
    precision: str = "32"
