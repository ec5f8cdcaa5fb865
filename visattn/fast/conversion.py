"""Conversion to autocast's precision once instead of at every step."""

import torch
from torch import Tensor

from visattn.fast import enabled


def working_precision(values: Tensor) -> Tensor:
    """Values converted to autocast's precision, so that this is not repeated in every step's product."""
    device = values.device.type
    on = enabled() and torch.is_autocast_enabled(device)
    return values.to(torch.get_autocast_dtype(device)) if on else values
