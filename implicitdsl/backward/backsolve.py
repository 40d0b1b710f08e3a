"""The adjoint equation, solved backwards in time beside the states themselves: memory that no step adds to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..solvers.ode.adaptive import integrate
from ..solvers.ode.control import Control
from ..solvers.ode.explicit import Explicit
from ..solvers.ode.problem import OdeProblem
from ..solvers.ode.trajectory import Places, Taken, Tape
from ..solvers.problem import Inputs
from .ode_sums import Gradients, Stages

DRIFT = 1e3
"""Units of the tolerance by which states may miss, on their way back, those of the way there."""


def backsolve(
    problem: OdeProblem,
    method: Explicit,
    control: Control,
    a: Inputs,
    wanted: Sequence[bool],
    y0: Tensor,
    y: Tensor,
    places: Places,
    good: Tensor,
    g: Tensor,
) -> tuple[Tensor, list[Tensor | None], Tensor, Tensor]:
    """(cotangent of y0, cotangents of the inputs, drift (B,), whether each row came back (B,)).

    dλ/dt = −(∂f/∂y)ᵀ λ from each output, at which λ jumps by its cotangent, back to the one before; ā = ∫ (∂f/∂a)ᵀ λ dt
    by the weights of the steps, outside the error norm, as are integrals among the states. States start afresh at every
    output. `drift`: the largest distance from what they were, in units of the tolerance. Rows that are not `good` have
    no gradient. Not differentiable. Cost: an evaluation and a VJP of f a stage, and a VJP by the inputs.
    (Pontryagin et al., 1962; Chen et al., NeurIPS 2018.)
    """
    rows, n = y0.shape
    kept = n if problem.measured is None else problem.measured
    at, order = torch.where(good.unsqueeze(1), places.at, 0.0).sort(1, descending=True)
    spread = order.unsqueeze(-1).expand(-1, -1, n)
    states, given = y.gather(1, spread), torch.where(good.view(-1, 1, 1), g.gather(1, spread), 0.0)
    sums = Gradients(problem, a, wanted, rows)
    lam, drift = torch.zeros_like(y0), torch.zeros(rows, dtype=torch.float64, device=y0.device)
    came = torch.ones_like(good)
    rtol, atol = control.tolerances(y0.dtype)
    constant = torch.zeros_like(y0[:, kept:])
    for k in range(at.shape[1]):
        lam = lam + given[:, k]
        last = k + 1 == at.shape[1]
        begin, end = at[:, k], torch.zeros_like(at[:, k]) if last else at[:, k + 1]
        target = y0 if last else states[:, k + 1]
        constant = lam[:, kept:]
        pair = torch.cat([states[:, k, :kept], lam[:, :kept]], 1)
        both, inputs = _paired(problem, kept, a, constant)
        away = Places(places.t0 + begin * places.span, (end - begin) * places.span, torch.ones_like(begin).unsqueeze(1))
        tape = _Quadrature(sums, method, kept, constant)
        ended = integrate(both, (method,), inputs, pair, away, control, tape)
        back, part = ended.end.split(kept, 1)
        lam = torch.cat([part, constant], 1)
        came = came & (ended.converged | ~good)
        missed = torch.linalg.vector_norm((back - target[:, :kept]).double(), dim=1)
        size = torch.linalg.vector_norm(target[:, :kept].double(), dim=1)
        drift = torch.maximum(drift, torch.where(good, missed / (atol * kept**0.5 + rtol * size), 0.0))
    sums.flush()
    return lam, sums.totals, drift, came


def _paired(problem: OdeProblem, kept: int, a: Inputs, constant: Tensor) -> tuple[OdeProblem, Inputs]:
    """(d(y, λ)/dt = (f, −(∂f/∂y)ᵀ λ) of the states that feed back, its inputs: the other states' λ and `a`)."""

    def rate(t: Tensor, pair: Tensor, rest: Tensor, *inputs: Tensor) -> Tensor:
        y = torch.cat([pair[:, :kept], torch.zeros_like(rest)], 1)
        lam = torch.cat([pair[:, kept:], rest], 1)
        pulled = problem.pull_state(t, y, lam, inputs)
        return torch.cat([problem.rate(t, y, *inputs)[:, :kept], -pulled[:, :kept]], 1)

    both = OdeProblem(rate, (1, *problem.ranks), autonomous=problem.autonomous, kinks=problem.kinks)
    return both, (constant, *a)


class _Quadrature(Tape):
    """Takes each step for the integrals of the inputs' cotangents, and forgets it."""

    def __init__(self, sums: Gradients, method: Explicit, kept: int, constant: Tensor) -> None:
        super().__init__()
        self.sums, self.method, self.kept, self.constant = sums, method, kept, constant

    def append(self, entry: Taken) -> None:
        assert entry.Z is not None
        weights = self.method.tableau.a[-1]
        stages, kept = len(weights), self.kept
        Z = entry.Z[:stages]
        rest = self.constant if entry.ids is None else self.constant[entry.ids]
        rest = rest.expand(stages, *rest.shape)
        y = torch.cat([Z[..., :kept], torch.zeros_like(rest)], -1)
        b = torch.tensor(weights, dtype=Z.dtype, device=Z.device).view(-1, 1, 1)
        u = torch.cat([Z[..., kept:], rest], -1) * (-b * entry.H)
        t = self.method.times(entry.t, entry.H)[:stages]
        t = (t if entry.sides is None else entry.sides.times(t)).reshape(-1)
        ids = None if entry.ids is None else entry.ids.repeat(stages)
        self.sums.add(Stages(t, y.reshape(-1, y.shape[-1]), u.reshape(-1, y.shape[-1]), ids))
