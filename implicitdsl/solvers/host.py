"""Numbers taken to the host, as few and as fast as may be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALL, LARGE = 1e-15, 1e15
"""Between them a norm in float32 is a norm: no square of an entry that matters vanishes or overflows."""

FEW = 256
"""So many numbers are taken to the host one by one."""


def extent(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest; NaN if any is, zeros of none. One sync; a few numbers are looked through faster
    here than by an operator."""
    if values.shape[0] > FEW:
        values = torch.stack(torch.aminmax(values))
    found = values.tolist() or (0.0,)
    return (math.nan, math.nan) if math.isnan(sum(found)) else (min(found), max(found))
