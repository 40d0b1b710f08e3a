"""Numbers taken to the host, as few and as fast as may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

SMALL, LARGE = 1e-15, 1e15
"""Between them a norm in float32 is a norm: no square of an entry that matters vanishes or overflows."""


def extent(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest; NaN if any is, zeros of none. One operator, and a sync for each."""
    if not values.numel():
        return 0.0, 0.0
    least, largest = torch.aminmax(values)
    return least.item(), largest.item()


def array(t: Tensor) -> Array:
    """A number a sample for the host, which keeps such books at a tenth of what operators cost; one sync."""
    return t.numpy(force=True)


def lengths(t: Tensor) -> Array:
    """‖·‖₂ of each sample (B, n) for the host."""
    return array(torch.linalg.vector_norm(t, dim=-1))


def column(values: Array, like: Tensor) -> Tensor:
    """A number a sample (B,) as a tensor (B, 1)."""
    return torch.from_numpy(values[:, None]).to(like)


def chosen(rows: Array, new: Tensor, old: Tensor) -> Tensor:
    """`new` (B, …) in these rows (B,) of booleans, else `old`."""
    if rows.all():
        return new
    return torch.where(torch.from_numpy(rows).to(old.device).view(-1, *(1,) * (old.ndim - 1)), new, old)
