"""torchdeq's solvers with exact implicit gradients (`ift=True`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchdeq import get_deq

from .contest import Gradient, Peer

SOLVERS = ("fixed_point_iter", "anderson", "broyden")
MAX_ITER = 2000


def solve(solver: str, tol: float, cell: Callable[[Tensor], Tensor], z0: Tensor) -> Tensor:
    """The fixed point of `cell`, with the implicit gradient."""
    settings: dict[str, Any] = {"f_solver": solver, "b_solver": solver, "ift": True}
    deq = get_deq(f_max_iter=MAX_ITER, b_max_iter=MAX_ITER, f_tol=tol, b_tol=tol, **settings)
    return deq(cell, z0)[0][-1]


def peers(
    cell: Callable[[Tensor], Tensor], z0: Tensor, trained: Tensor, solvers: Sequence[str] = SOLVERS
) -> list[Peer]:
    """Forward and backward of the sum of the fixed point; the gradient of `trained`, on which `cell` depends."""

    def at(solver: str, tol: float) -> Gradient:
        settings: dict[str, Any] = {"f_solver": solver, "b_solver": solver, "ift": True}
        deq = get_deq(f_max_iter=MAX_ITER, b_max_iter=MAX_ITER, f_tol=tol, b_tol=tol, **settings)

        def run() -> Tensor:
            trained.grad = None
            deq(cell, z0)[0][-1].sum().backward()
            assert trained.grad is not None
            return trained.grad

        return run

    return [Peer(f"torchdeq {s}", lambda tol, s=s: at(s, tol)) for s in solvers]


def backward_peers(cell: Callable[[Tensor], Tensor], z0: Tensor, trained: Tensor) -> list[Peer]:
    """The backward pass alone, after a forward pass at the same tolerance (not timed)."""

    def at(solver: str, tol: float) -> Gradient:
        loss = solve(solver, tol, cell, z0).sum()

        def run() -> Tensor:
            return torch.autograd.grad(loss, trained, retain_graph=True)[0]

        return run

    return [Peer(f"torchdeq {s}", lambda tol, s=s: at(s, tol)) for s in SOLVERS]
