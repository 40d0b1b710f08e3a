"""Small dense programs without equalities: block principal pivoting where all but LAPACK is done by the host.

Operators on so few numbers take the time of their calls, and a call of numpy's takes a third of one of torch's.
"""

from __future__ import annotations

import numpy as np
import torch

from ...ground.outcomes import Outcome
from ..host import Array, array
from .complementary import complement
from .dual import GATHERED, Dual, Kept, Root, definite
from .exchanges import Small
from .quadratic import Optimum, Quadratic, residual

CONVERGED = int(Outcome.CONVERGED)


def fits(problem: Quadratic) -> bool:
    """Whether this is for a problem: P and G of each sample, few unknowns and rows, and tensors on the host."""
    P, q, G, d = problem.P, problem.q, problem.C, problem.d
    if problem.equalities or P is None or P.ndim != 3 or G.ndim != 3 or q.ndim != 2 or d.ndim != 2:
        return False
    return 0 < G.shape[-2] < GATHERED and G.shape[-1] < GATHERED and q.device.type == "cpu"


@np.errstate(all="ignore")
def small(problem: Quadratic, tol: float, first: Array | None, hard: bool) -> Optimum | None:
    """The solutions of min ½zᵀPz + qᵀz, G z ≤ d, STALLED where there is none to `tol`; None if P is nearly singular.
    `first` and `hard` are those of `complement`.

    With P = L Lᵀ, Y = [G; qᵀ] L⁻ᵀ and K = Y Yᵀ the multipliers are 0 ≤ y ⊥ S y + r ≥ 0, S = K[:m, :m] and
    r = d + K[m, :m], and z = −L⁻ᵀ Yᵀ [y; 1]. Cost n³/3 + n²m + n m² a sample, and the exchanges.
    """
    P, q, G, d = problem.P, problem.q, problem.C, problem.d
    assert P is not None
    L = definite(P)
    if L is None:
        return None
    m = G.shape[-2]
    rows = torch.from_numpy(np.concatenate([array(G), array(q)[:, None]], 1))
    Y = array(torch.linalg.solve_triangular(L.mT, rows, upper=True, left=False))
    K = Y @ Y.swapaxes(-1, -2)
    K[:, m, :m] += array(d)
    S, r = (torch.from_numpy(t) for t in (K[:, :m, :m], K[:, m, :m]))
    found = complement(S, r, hard, first, Small(K))
    y = array(found.y)[:, None]
    x = torch.from_numpy(-(y @ Y[:, :m] + Y[:, m:]))
    z = torch.linalg.solve_triangular(L, x, upper=False, left=False).squeeze(1)
    Z = torch.from_numpy(Y)[:, :m].mT
    kept = Kept(Dual(problem, Root(L), None, Z, S, Z, None, None, None), found.active, found.factor)
    error = torch.from_numpy(_worst(problem, array(z), y))
    status, whole = torch.from_numpy(np.full(len(K), CONVERGED)), None
    if not found.lost and (array(error) <= tol).all():
        whole = status
    else:
        error = residual(problem, z, found.y)
        status = torch.where((error <= tol) & (found.rounds > 0), CONVERGED, int(Outcome.STALLED))
        found.rounds.clamp_(min=1)
    return Optimum(z, found.y, found.active, status, found.rounds, error, kept, whole)


def _worst(problem: Quadratic, z: Array, y: Array) -> Array:
    """The largest number of P z + q + Gᵀy and min(y, d − G z), (B,); y (B, 1, m)."""
    P, q, G, d = (array(t) for t in (problem.P, problem.q, problem.C, problem.d) if t is not None)
    slope = (z[:, None] @ P + y @ G)[:, 0] + q
    slack = d - (G @ z[..., None])[..., 0]
    return np.maximum(np.abs(slope).max(1), np.abs(np.minimum(y[:, 0], slack)).max(1))
