"""When, and with which versions, results were made."""

import platform
from datetime import date

import torch

from visattn import __version__


def provenance() -> dict:
    """The date and the versions, as files of results begin with."""
    return {
        "date": date.today().isoformat(),
        "versions": {"visattn": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
