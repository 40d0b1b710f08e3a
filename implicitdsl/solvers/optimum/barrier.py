"""The barrier problem min ½zᵀPz + qᵀz − μ Σ log(h − G z), A z = b at a fixed μ: there smoothed gradients are."""

from __future__ import annotations

import torch
from torch import Tensor

from .interior_point import FRACTION, Newton, Residuals, State, equilibrated, longest, start
from .quadratic import Quadratic, peak, times, times_transposed

EXACT = 1e-11
ROUNDS = 80


def barrier(problem: Quadratic, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """z (B, n), y (B, m) with P z + q + Cᵀy = 0, A z = b, (h − G z) ∘ y = μ, and whether they were found, (B,).

    Primal-dual Newton steps from the least-squares start; n³/3 + n²m flops an iteration.
    """
    scaled, rows, cost = equilibrated(problem.cured())
    total, k = problem.rows, problem.equalities
    m = problem.d.shape[-1] - k
    target = mu / cost.expand(total, 1)  # rows and multipliers are scaled inversely, so products only by the cost
    state = start(Newton(scaled, scaled.q.new_ones(total, m)), scaled, total)
    good = torch.zeros(total, dtype=torch.bool, device=scaled.q.device)
    for _ in range(ROUNDS):
        r = Residuals.of(scaled, state)
        wrong = state.x * state.s - target
        size = 1 + peak(state.z) + peak(torch.cat([state.y, state.x], -1))
        worst = torch.stack([peak(r.dual), peak(r.equal, r.below), peak(wrong) / target.squeeze(-1)]).amax(0)
        good = worst <= EXACT * size
        if bool((good | ~worst.isfinite()).all()):
            break
        newton = Newton(scaled, state.x / state.s)
        f = -r.dual - times_transposed(newton.G, state.x / state.s * r.below - wrong / state.s)
        dz, dy = newton.solve(f, -r.equal)
        ds = -r.below - times(newton.G, dz)
        d = State(dz, dy, -(wrong + state.x * ds) / state.s, ds)
        step = longest(state, d, FRACTION)
        state = State(*(t + step * move for t, move in zip(state, d, strict=True)))
    y = torch.cat([state.y, state.x], -1) * rows * cost
    return state.z, y, good
