"""A factor as a constant under every transform of torch.func."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..solvers.factor import Factor

Factoring = Callable[..., tuple[Factor, Tensor]]
"""Of tensors (B, …) an LU (B, N, N) and a flag for each of the batch, (B,)."""


def constant_factor(by: Factoring, *tensors: Tensor) -> tuple[Factor, Tensor]:
    """What `by` makes of the tensors, which has no derivative; what vmap maps is one batch more of it."""
    lu, pivots, flags = _Constant.apply(by, *tensors)
    return Factor(lu, pivots), flags > 0


class _Constant(torch.autograd.Function):
    @staticmethod
    def forward(by: Factoring, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factor, flags = by(*tensors)
        assert factor.pivots is not None
        return factor.lu, factor.pivots, flags.to(factor.lu.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], by: Factoring, *tensors: Tensor) -> tuple[Any, Any]:
        moved = [
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        found = _Constant.apply(by, *(t.flatten(0, 1) for t in moved))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in found), (0, 0, 0)
