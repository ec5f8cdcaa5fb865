"""CPU optimisations that do not change values, listed in docs/fast.md. This file imports nothing heavy.

Each call of an optimisation is next to the plain code, which the environment variable `VISATTN_FAST=0` selects instead.
"""

import os


def enabled() -> bool:
    """Whether the optimisations are on: unless `VISATTN_FAST=0` is in the environment."""
    return os.environ.get("VISATTN_FAST") != "0"
