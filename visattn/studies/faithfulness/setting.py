"""Settings of faithfulness measurements."""

from typing import NamedTuple

from torch import Tensor

from visattn.errors import InputError
from visattn.explain.faithfulness import Units

SUBSTRATES = ("blur", "grey")


class Example(NamedTuple):
    """An input image.

    Attributes:
        id: its name.
        image: (3, h, w) uint8 of the model's input size.
        references: tokenised captions; none where nobody wrote any.
    """

    id: str
    image: Tensor
    references: list[list[str]]


class Settings(NamedTuple):
    """How it is measured.

    Attributes:
        methods: names of the maps.
        units: that are taken, "pixels" or "cells".
        steps: of a curve.
        substrate: that insertion begins with.
        seeds: how many random maps for each image, and how many shuffles of α.
        seed: of the first.
        batch_size: images that the model sees at once.
        precision: "32", or "bf16" for mixed precision, which some CPUs compute several times faster.
    """

    methods: tuple[str, ...]
    units: Units = "pixels"
    steps: int = 32
    substrate: str = "blur"
    seeds: int = 5
    seed: int = 0
    batch_size: int = 32
    precision: str = "32"

    def check(self) -> None:
        """Raise an `InputError` where a number is too small."""
        for name in ("steps", "seeds", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
