"""2,000 overlays one after the other: memory stays flat.

As a program, `python tests/test_soak.py 1`, every overlay is a whole sheet; that takes some minutes.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from visattn.images import Geometry
from visattn.overlay import caption_sheet, encode_figure, encode_png, heatmap, shared_limits

SHEETS = 50  # every 50th overlay is a whole sheet: a sheet takes 60 ms, a heat map under one


def draw(number: int, rng: np.random.Generator, sheets: int) -> None:
    side = tuple(int(n) for n in rng.integers(11, 53, 2))
    picture, weights = rng.integers(0, 256, (*side, 3), dtype=np.uint8), rng.dirichlet(np.ones(15)).reshape(3, 5)
    geometry = Geometry.identity(side)
    if number % sheets:
        encode_png(heatmap(picture, weights, geometry, limits=shared_limits([weights])))
    else:
        encode_figure(caption_sheet(picture, [f"word{number}"], weights[None], geometry, title=f"{number}.jpg"))


def held() -> tuple[int, float]:
    """Figures that are alive, and MB of memory that this process holds."""
    gc.collect()
    figures = sum(type(thing) is Figure for thing in gc.get_objects())
    return figures, int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(sheets: int, count: int = 2000, before: int = 60) -> tuple[int, float]:
    """How many figures and MB more are held after `count` overlays; some sheets are drawn before, until it is warm."""
    rng = np.random.default_rng(0)
    for number in range(before):
        draw(number, rng, 1)
    figures, memory = held()
    for number in range(count):
        draw(number, rng, sheets)
    return held()[0] - figures, held()[1] - memory


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_memory_stays_flat_over_two_thousand_overlays():
    """In a process of its own, where nothing else has left its traces; figures that are kept would be over 100 MB."""
    words = [sys.executable, __file__, str(SHEETS)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    figures, memory = json.loads(done.stdout)
    assert figures == 0
    assert memory < 30


if __name__ == "__main__":
    print(json.dumps(soak(int(sys.argv[1]))))
