"""CPU optimisations that do not change values, listed in docs/fast.md. This file imports nothing heavy.

The environment variable `VISATTN_FAST=0` selects the plain code, which is next to each use of an optimisation.
"""

import os


def enabled() -> bool:
    """Whether the optimisations are on, that is, unless `VISATTN_FAST=0` is set."""
    return os.environ.get("VISATTN_FAST") != "0"
