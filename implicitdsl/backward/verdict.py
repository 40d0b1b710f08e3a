"""The policy for failed samples where a solution is written in differentiable operations, under any transform."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ground.outcomes import Outcome
from ..solvers.verdict import CONVERGED, Solved
from .failure import Failures, report_unsolved


def announced(failures: Failures, z: Tensor, status: Tensor) -> Tensor:
    """The status (B,) of the solution z (B, n), after warnings or errors; a constant under every transform."""
    if not torch.compiler.is_compiling():
        return _Announced.apply(failures, z.detach(), status)
    once = torch.ones_like(status)
    told = report_unsolved(Solved(z.detach(), status, once, torch.zeros_like(z[:, 0]), once), failures)
    lost = ~told.z.isfinite().all(-1) & (status == CONVERGED)  # used, so that no compiler drops what is told
    return torch.where(lost, int(Outcome.NOT_FINITE), status)


class _Announced(torch.autograd.Function):
    @staticmethod
    def forward(failures: Failures, z: Tensor, status: Tensor) -> Tensor:
        once = torch.ones_like(status)
        report_unsolved(Solved(z, status, once, torch.zeros_like(z[:, 0]), once), failures)
        return status.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], failures: Failures, z: Tensor, status: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        moved = [
            t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip((z, status), in_dims[1:], strict=True)
        ]
        found = _Announced.apply(failures, *(t.flatten(0, 1) for t in moved))
        return found.unflatten(0, (size, -1)), 0
