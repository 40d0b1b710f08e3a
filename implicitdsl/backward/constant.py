"""A factor as a constant under every transform of torch.func."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..solvers.factor import Factor
from .rules import Constant, folded, split

Factoring = Callable[..., tuple[Factor, Tensor]]
"""Of tensors (B, …) an LU (B, N, N) and a flag for each of the batch, (B,)."""


def constant_factor(by: Factoring, *tensors: Tensor) -> tuple[Factor, Tensor]:
    """What `by` makes of the tensors, which has no derivative; what vmap maps is one batch more of it."""
    lu, pivots, flags = _Factored.apply(by, *tensors)
    return Factor(lu, pivots), flags > 0


class _Factored(Constant):
    @staticmethod
    def forward(by: Factoring, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factor, flags = by(*tensors)
        assert factor.pivots is not None
        return factor.lu, factor.pivots, flags.to(factor.lu.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], by: Factoring, *tensors: Tensor) -> tuple[Any, Any]:
        return split(info.batch_size, _Factored.apply(by, *folded(info.batch_size, in_dims[1:], tensors)))
