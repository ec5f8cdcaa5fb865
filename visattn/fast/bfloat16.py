"""softmax(QKᵀ/√d) V in bfloat16 on a CPU, without PyTorch's kernel; exact products of bfloat16 numbers.

PyTorch's fused kernel is slow there, especially backward, and its unfused one computes in float32. Here scores are
rounded to bfloat16 like everything else; the output then has an error of 0.7% instead of 0.4%. In float32 there is
little difference in speed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from visattn.fast import enabled


def is_used(query: Tensor) -> bool:
    """Whether to use it for queries of this device and type."""
    return enabled() and query.device.type == "cpu" and query.dtype == torch.bfloat16


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """`visattn.attention.attend`, with weights of `dtype`, by default that of the scores."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=dtype)
    return weights.to(value.dtype) @ value, weights


@contextmanager
def bfloat16_products(tensor: Tensor, dtype: torch.dtype) -> Iterator[None]:
    """A context in which products of float32 matrices may take bfloat16 factors, with sums in float32.

    Of numbers that came from bfloat16 the products are the same, at more than twice the rate. PyTorch's switch is one
    for all threads, so it is left alone where another thread might multiply.

    Args:
        tensor: a factor, for its device.
        dtype: that the numbers of both factors came from; nothing changes unless it is bfloat16.
    """
    used = dtype == torch.bfloat16 and tensor.device.type == "cpu" and enabled() and _alone()
    if not (used and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        yield
        return
    switch: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # PyTorch 2.9
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


def _alone() -> bool:
    """Whether this is the only thread of Python, beside the one that draws tqdm's bars."""
    this = threading.current_thread()
    return all(thread is this or type(thread).__name__ == "TMonitor" for thread in threading.enumerate())
