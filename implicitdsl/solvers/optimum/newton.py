"""Newton's method for smooth minimisation without constraints, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .quadratic import peak

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)
FAR = 1e12
"""A point so large means that there is no minimum."""
HALVINGS = 36
LEAST = 1e-8
"""Of the largest curvature: along smaller ones steps are bounded."""


class Minimum(NamedTuple):
    """z (B, n), status and iterations (B,)."""

    z: Tensor
    status: Tensor
    iterations: Tensor


def minimise(
    value: Callable[[Tensor, Tensor], Tensor],
    derivatives: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    z0: Tensor,
    tol: float,
    max_iter: int,
) -> Minimum:
    """From z0 (B, n), where f and its derivatives are finite; value(z, rows) -> f (B,), derivatives -> ∇f, ∇²f.

    Steps d = −|∇²f|⁻¹∇f, Newton's where ∇²f ≻ 0, halved until f falls by 1e-4 of the slope (Nocedal & Wright §3.4).
    Ends with ‖∇f‖ ≤ tol (1 + ‖∇f(z0)‖). Cost an iteration: n³/3 flops a sample. Samples that are done leave the batch.
    """
    rows = torch.arange(z0.shape[0], device=z0.device)
    out = Minimum(z0.clone(), torch.full_like(rows, RUNNING), torch.zeros_like(rows))
    z, f = z0, value(z0, rows)
    scale: Tensor | None = None
    for it in range(max_iter + 1):
        g, H = derivatives(z, rows)
        error = peak(g)
        scale = 1 + error if scale is None else scale
        done = error <= tol * scale
        lost = ~(error + f).isfinite()
        if it == max_iter or bool((done | lost).any()):
            far = z.abs().amax(-1) > FAR
            status = torch.where(done, CONVERGED, torch.where(lost, int(Outcome.NOT_FINITE), RUNNING))
            status = torch.where(far & (status == RUNNING), int(Outcome.UNBOUNDED), status)
            if it == max_iter:
                status = torch.where(status == RUNNING, int(Outcome.MAX_ITERATIONS), status)
            if _kept(out, rows, z, status, it):
                return out
            left = status == RUNNING
            rows, z, f, g, H, scale = (t[left] for t in (rows, z, f, g, H, scale))
        d = _direction(g, H)
        z, f, moved = _searched(value, rows, z, f, d, (g * d).sum(-1))
        if not bool(moved.all()):
            status = torch.where(moved, RUNNING, int(Outcome.STALLED))
            status = torch.where((z.abs().amax(-1) > FAR) & ~moved, int(Outcome.UNBOUNDED), status)
            if _kept(out, rows, z, status, it + 1):
                return out
            rows, z, f, scale = (t[moved] for t in (rows, z, f, scale))
    return out


def _kept(out: Minimum, rows: Tensor, z: Tensor, status: Tensor, it: int) -> bool:
    """Write down the rows that are settled; whether all are."""
    settled = status != RUNNING
    where = rows[settled]
    out.z[where], out.status[where], out.iterations[where] = z[settled], status[settled], it
    return bool(settled.all())


def _direction(g: Tensor, H: Tensor) -> Tensor:
    """−H⁻¹ g; where H is not definite −|H|⁻¹ g, which goes down along every eigenvector (Dauphin et al. 2014)."""
    if H.shape[-1] == 1:
        h = H.squeeze(-1).abs()
        return -g / torch.where(h > 0, h, 1.0)
    L, info = torch.linalg.cholesky_ex(H)
    bad = info > 0
    d = -torch.cholesky_solve(g.unsqueeze(-1), L).squeeze(-1)
    if bool(bad.any()):
        values, V = torch.linalg.eigh(H[bad].nan_to_num(0.0, 0.0, 0.0))
        size = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(H.dtype).tiny)
        down = (V.mT @ g[bad].unsqueeze(-1)).squeeze(-1) / torch.maximum(values.abs(), LEAST * size)
        d[bad] = -(V @ down.unsqueeze(-1)).squeeze(-1)
    return d


def _searched(
    value: Callable[[Tensor, Tensor], Tensor], rows: Tensor, z: Tensor, f: Tensor, d: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The point, its value, and whether it moved."""
    room = 1e-12 * (1 + f.abs())
    trial = z + d
    new = value(trial, rows)
    good = new <= f + 1e-4 * slope.clamp(max=0) + room  # false for NaN
    if bool(good.all()):
        return trial, new, good
    alpha = torch.ones_like(slope)
    z_out, f_out = torch.where(good.unsqueeze(-1), trial, z), torch.where(good, new, f)
    moved = good
    for _ in range(HALVINGS):
        alpha = alpha / 2
        trial = z + alpha.unsqueeze(-1) * d
        new = value(trial, rows)
        good = ~moved & (new <= f + 1e-4 * alpha * slope.clamp(max=0) + room)
        z_out, f_out = torch.where(good.unsqueeze(-1), trial, z_out), torch.where(good, new, f_out)
        moved = moved | good
        if bool(moved.all()):
            break
    return z_out, f_out, moved
