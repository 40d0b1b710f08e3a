"""0 ≤ y ⊥ S y + r ≥ 0 for S ⪰ 0, a batch at a time: exchanges of blocks of rows, begun again by interior points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array
from .exchanges import Exchanged, Systems, dot, exchanged, systems_of
from .quadratic import cholesky_times, times

PASSES = ((12, 1e-3), (30, 1e-8))
"""Iterations and accuracy of the interior points that other starts come from."""


def complement(
    S: Tensor, r: Tensor, hard: bool = False, first: Array | None = None, systems: Systems | None = None
) -> Exchanged:
    """The solution for S (m, m) or (B, m, m) and r (B, m); `hard`: S has so low a rank that circles are the rule;
    `first` (B, m): rows that are guessed to be active; `systems` of S and r, where they are there.

    Exchanges of rows end in a few rounds, exact to rounding, or go in circles. Samples that do not end so start again
    from the rows that Mehrotra's predictor-corrector method finds active, m³/3 flops an iteration.
    """
    passes = PASSES
    if first is None and hard:
        first, passes = _interior(S, r, *PASSES[0]), PASSES[1:]
    if first is None:
        first = descent(array(r), array(S.diagonal(dim1=-2, dim2=-1)), partial(_product, S))
    found = exchanged(systems or systems_of(S, r), first)
    for iterations, accuracy in passes:
        if not found.lost:
            break
        left = (found.rounds == 0).nonzero().squeeze(-1)
        part, right = S if S.ndim == 2 else S[left], r[left]
        again = exchanged(systems_of(part, right), _interior(part, right, iterations, accuracy))
        for t, value in zip(found[:3], again[:3], strict=True):
            t[left] = value
        found = found._replace(factor=None, lost=again.lost)
    return found


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def descent(r: Array, diagonal: Array, product: Callable[[Array], Array]) -> Array:
    """The rows that are active after the best step along the first direction of descent, by the next one, (B, m).
    `diagonal` of S (m,) or (B, m); `product` of S with rows (B, m)."""
    tiny = np.finfo(r.dtype).tiny
    diagonal = np.maximum(diagonal, tiny)
    p = np.minimum(r / diagonal, 0)  # against the direction
    Sp = product(p)
    return r - dot(p, r) / np.maximum(dot(p, Sp), tiny) * (Sp - diagonal * p) < 0


def _product(S: Tensor, p: Array) -> Array:
    if S.ndim == 3 and S.device.type == "cpu":
        return (array(S) @ p[..., None])[..., 0]
    return array(times(S, torch.from_numpy(p).to(S)))


def _interior(S: Tensor, r: Tensor, iterations: int, accuracy: float) -> Array:
    """The rows whose multiplier outweighs their slack near the solution, (B, m)."""
    rows, m = r.shape
    diagonal = S.diagonal(dim1=-2, dim2=-1).expand(rows, m).clamp(min=torch.finfo(r.dtype).tiny)
    size = r.abs().amax(-1, keepdim=True) + 1e-3 * diagonal.mean(-1, keepdim=True)
    y = size / diagonal.mean(-1, keepdim=True) * torch.ones_like(r)
    s = torch.maximum(times(S, y) + r, 0.1 * size)
    for _ in range(iterations):
        gap = times(S, y) + r - s
        mu = (s * y).mean(-1, keepdim=True)
        if bool(((gap.abs() <= accuracy * size) & (mu * diagonal <= (accuracy * size) ** 2)).all()):
            break
        K = S.expand(rows, m, m).clone()
        K.diagonal(dim1=-2, dim2=-1).add_(s / y)
        F, _ = torch.linalg.cholesky_ex(K)

        dy, ds = _direction(F, y, s, gap, 0.0)
        step = _longest(y, s, dy, ds, 1.0)
        ahead = ((s + step * ds) * (y + step * dy)).mean(-1, keepdim=True)
        dy, ds = _direction(F, y, s, gap, (ahead / mu).clamp(0, 1) ** 3 * mu - dy * ds)
        step = _longest(y, s, dy, ds, 0.99)
        tiny = torch.finfo(r.dtype).tiny ** 0.5
        y, s = (y + step * dy).clamp(min=tiny), (s + step * ds).clamp(min=tiny)
    return array(y * diagonal > s)


def _direction(F: Tensor, y: Tensor, s: Tensor, gap: Tensor, centre: Tensor | float) -> tuple[Tensor, Tensor]:
    """For S dy − ds = −gap, y ds + s dy = centre − y s; F is the factor of S + diag(s / y)."""
    right = centre / y - s
    dy = cholesky_times(F, right - gap)
    return dy, right - s / y * dy


def _longest(y: Tensor, s: Tensor, dy: Tensor, ds: Tensor, share: float) -> Tensor:
    """The step at which the first number vanishes, times `share`, at most 1."""
    worst = torch.maximum((-dy / y).amax(-1, keepdim=True), (-ds / s).amax(-1, keepdim=True))
    return (worst / share).clamp(min=1.0).reciprocal()
