"""Numbers taken to the host, as few and as fast as may be."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL, LARGE = 1e-15, 1e15
"""Between them a norm in float32 is a norm: no square of an entry that matters vanishes or overflows."""


def extent(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest; NaN if any is, zeros of none. One operator, and a sync for each."""
    if not values.numel():
        return 0.0, 0.0
    least, largest = torch.aminmax(values)
    return least.item(), largest.item()
