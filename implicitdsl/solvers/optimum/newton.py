"""Newton's method for smooth minimisation without constraints, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..host import Array, array
from .quadratic import peak

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)
FAR = 1e12
"""A point so large means that there is no minimum."""
HALVINGS = 36
LONGEST = 1e3
"""Steps are no longer, relative to 1 + ‖z‖: halvings would not bring them back where a function is all but straight."""
LEAST = 1e-8
"""Of the largest curvature: along smaller ones steps are bounded."""
SHARE = 0.25
"""Samples that are done leave the batch where at most such a share is open."""

# What concerns whole samples is kept by the host, which has to know it anyway, and whose operators cost less.


class Minimum(NamedTuple):
    """z (B, n), status and iterations (B,); ∇f (B, n) and ∇²f (B, n, n) at z where no sample left before the end."""

    z: Tensor
    status: Tensor
    iterations: Tensor
    last: tuple[Tensor, Tensor] | None


@np.errstate(over="ignore", invalid="ignore")
def minimise(
    value: Callable[[Tensor, Tensor], Tensor],
    derivatives: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    z0: Tensor,
    first: tuple[Tensor, Tensor, Tensor],
    tol: float,
    max_iter: int,
) -> Minimum:
    """From z0 (B, n), where f, ∇f, ∇²f are `first`; value(z, rows) -> f (B,), derivatives -> ∇f, ∇²f.

    Steps d = −|∇²f|⁻¹∇f, Newton's where ∇²f ≻ 0, halved until f falls by 1e-4 of the slope (Nocedal & Wright §3.4).
    Ends with ‖∇f‖ ≤ tol (1 + ‖∇f(z0)‖). Cost an iteration: n³/3 flops a sample. Samples that are done stay where they
    are, and leave the batch with most others.
    """
    rows, found, z = torch.arange(z0.shape[0], device=z0.device), z0, z0
    live, open_ = np.arange(len(z0)), np.ones(len(z0), dtype=bool)
    status, iterations = np.full(len(z0), RUNNING), np.zeros(len(z0), dtype=np.int64)
    f, g, H = array(first[0]), *first[1:]
    error = array(peak(g))
    least = tol * (1 + error)
    for it in range(max_iter + 1):
        if it:
            g, H = derivatives(z, rows)
            error = array(peak(g))
        done, lost = error <= least, ~np.isfinite(error + f)
        if it == max_iter or (open_ & (done | lost)).any():
            left = int(Outcome.MAX_ITERATIONS) if it == max_iter else RUNNING
            verdict = np.where(_far(z), int(Outcome.UNBOUNDED), left)
            verdict = np.where(done, CONVERGED, np.where(lost, int(Outcome.NOT_FINITE), verdict))
            status[live[open_]], iterations[live[open_]] = verdict[open_], it
            open_ = open_ & (verdict == RUNNING)
            if not open_.any():
                break
            if open_.sum() <= SHARE * len(live):
                found = z.clone() if found is z0 else found.index_copy_(0, rows, z)
                within = torch.from_numpy(open_.nonzero()[0]).to(z.device)
                rows, z, g, H = (t.index_select(0, within) for t in (rows, z, g, H))
                live, f, least, open_ = live[open_], f[open_], least[open_], open_[open_]
        p = _direction(g, H, open_)
        long = array(peak(p)) / (LONGEST * (1 + array(peak(z))))
        if (long > 1).any():
            p = p / torch.from_numpy(np.fmax(long, 1.0)).to(p).unsqueeze(-1)
        z, f, moved = _searched(value, rows, z, f, p, -array((g * p).sum(-1)), open_)
        if not moved[open_].all():
            stuck = open_ & ~moved
            ended = np.where(_far(z), int(Outcome.UNBOUNDED), int(Outcome.STALLED))
            status[live[stuck]], iterations[live[stuck]] = ended[stuck], it + 1
            open_ = open_ & moved
            if not open_.any():
                break
    whole = len(live) == len(z0)
    found = z if whole else found.index_copy_(0, rows, z)
    verdicts = (torch.from_numpy(t).to(z.device) for t in (status, iterations))
    return Minimum(found, *verdicts, (g, H) if whole else None)


def _far(z: Tensor) -> Array:
    return array(peak(z)) > FAR


def _direction(g: Tensor, H: Tensor, open_: Array) -> Tensor:
    """H⁻¹ g; where H is not definite |H|⁻¹ g, which goes up along every eigenvector (Dauphin et al. 2014)."""
    if H.shape[-1] == 1:
        h = H.squeeze(-1).abs()
        return g / torch.where(h > 0, h, 1.0).clamp(min=1e-290)
    L, info = torch.linalg.cholesky_ex(H)
    p = torch.cholesky_solve(g.unsqueeze(-1), L).squeeze(-1)
    bad = (array(info) > 0) & open_
    if bad.any():
        where = torch.from_numpy(bad).to(H.device)
        values, V = torch.linalg.eigh(H[where].nan_to_num(0.0, 0.0, 0.0))
        size, slope = values.abs().amax(-1, keepdim=True), g[where].norm(dim=-1, keepdim=True)
        size = torch.where(size > 0, torch.maximum(values.abs(), LEAST * size), slope.clamp(min=1e-290))  # a step of 1
        up = (V.mT @ g[where].unsqueeze(-1)).squeeze(-1) / size
        p[where] = (V @ up.unsqueeze(-1)).squeeze(-1)
    return p


def _searched(
    value: Callable[[Tensor, Tensor], Tensor], rows: Tensor, z: Tensor, f: Array, p: Tensor, slope: Array, open_: Array
) -> tuple[Tensor, Array, Array]:
    """The point against p, its value, and which of the open samples moved."""
    room, fall = f + 1e-12 * (1 + np.abs(f)), 1e-4 * np.minimum(slope, 0.0)
    moved, waiting, found, at = np.zeros_like(open_), open_, f, z
    for k in range(HALVINGS + 1):
        alpha = 0.5**k
        trial = torch.sub(z, p, alpha=alpha)
        new = array(value(trial, rows))
        good = waiting & (new <= room + alpha * fall)  # false for NaN
        if good.all():
            return trial, new, good
        at = torch.where(torch.from_numpy(good).to(z.device).unsqueeze(-1), trial, at)
        found, moved, waiting = np.where(good, new, found), moved | good, waiting & ~good
        if not waiting.any():
            break
    return at, found, moved
