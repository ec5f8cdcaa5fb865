"""Tests that need a GPU: where they run, and what they have in common.

`pytest tests/gpu` skips them without CUDA; `VISATTN_GPU_TESTS=cpu` runs on the CPU what can run there.
"""

import os

import pytest
import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("VISATTN_GPU_TESTS", "cuda"))
CUDA = DEVICE.type == "cuda"

MARKS = [
    pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="no CUDA; VISATTN_GPU_TESTS=cpu runs on the CPU"),
    pytest.mark.filterwarnings("default"),  # those of drivers and compilers are not ours to mend
]
ON_DEVICE = [f"--trainer.accelerator={'gpu' if CUDA else 'cpu'}", "--trainer.devices=1"]


def apart(found: Tensor, expected: Tensor) -> float:
    """The distance of two tensors, relative to the expected one's norm."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))
