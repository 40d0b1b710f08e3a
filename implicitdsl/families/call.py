"""What the families' generated functions take, and the dtype of what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """A generated function and what it takes, by name."""

    name: str
    inputs: tuple[str, ...]
    opaques: tuple[str, ...] = ()


def kind_of(values: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of a block's values; torch's default where there are none."""
    like = next(iter(values.values()), None)
    return torch.get_default_dtype() if like is None else like.dtype
