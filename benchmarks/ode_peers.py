"""torchdiffeq, torchode and diffrax on the same problems. Every contestant returns (states, gradient), flat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchdiffeq
import torchode
from torch import Tensor, nn

Answer = tuple[Tensor, Tensor]
Contestant = Callable[[], Answer]


class Field(nn.Module):
    """(t, y) -> rate, with parameters that are trained."""

    def __init__(self, rate: Callable[..., Tensor], *trained: Tensor) -> None:
        super().__init__()
        self.rate = rate
        self.trained = nn.ParameterList([nn.Parameter(p.detach().clone()) for p in trained])

    def forward(self, t: Any, y: Any) -> Any:
        return self.rate(y, *self.trained)


def backward(value: Tensor, weights: Tensor, trained: Sequence[Tensor]) -> Answer:
    """The states, and the gradient of their weighted sum."""
    found = torch.autograd.grad((value * weights).sum(), list(trained))
    return value.detach().flatten(), torch.cat([g.flatten() for g in found])


def of_torchdiffeq(field: Field, y0: Tensor, end: float, weights: Tensor, rtol: float, atol: float, how: str) -> Answer:
    """`how`: direct or adjoint."""
    solve = torchdiffeq.odeint if how == "direct" else torchdiffeq.odeint_adjoint
    times = torch.tensor([0.0, end], dtype=y0.dtype)
    y = solve(field, y0, times, rtol=rtol, atol=atol, method="dopri5")[-1]
    return backward(y, weights, list(field.parameters()))


def of_torchode(field: Field, y0: Tensor, end: float, weights: Tensor, rtol: float, atol: float) -> Contestant:
    """Tsit5 with an integral controller, as its documentation begins."""
    term = torchode.ODETerm(field)
    method, steps = torchode.Tsit5(term=term), torchode.IntegralController(atol=atol, rtol=rtol, term=term)
    solver = torchode.AutoDiffAdjoint(method, steps)
    times = torch.tensor([0.0, end], dtype=y0.dtype).repeat(len(y0), 1)
    problem = torchode.InitialValueProblem(y0=y0, t_eval=times)

    def run() -> Answer:
        return backward(solver.solve(problem).ys[:, -1], weights, list(field.parameters()))

    return run


def of_diffrax(
    params: Sequence[Tensor], y0: Tensor, end: float, weights: Tensor, rtol: float, atol: float
) -> Contestant | None:
    """An MLP with one hidden layer, (W, b, V, c), by Tsit5 under jit; None where diffrax is not installed."""
    try:
        from .diffrax_peer import mlp
    except ImportError:
        return None
    return mlp(params, y0, end, weights, rtol, atol)
