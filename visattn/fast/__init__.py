"""CPU optimisations that do not change values, listed in docs/fast.md. This file imports nothing heavy.

Where a trick is called the plain code stands beside it, which `VISATTN_FAST=0` in the environment runs instead.
"""

import os


def enabled() -> bool:
    """Whether the tricks are used: unless `VISATTN_FAST=0` is in the environment."""
    return os.environ.get("VISATTN_FAST") != "0"
