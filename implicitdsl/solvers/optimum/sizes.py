"""Sizes in which a conic program's unknowns, rows and costs are of size one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array

FAR = 1e2
"""By so much a size may differ from one before it is made one: solvers bear that."""
UNEQUAL = 1e-8
"""By so much two guesses of a size may differ."""


class Sizes(NamedTuple):
    """Sizes of unknowns x, of slopes P x + q and of entries of A, each (B,) or (1,): powers of two, so that nothing is
    rounded; one where they are not far from it."""

    x: Array
    slope: Array
    A: Array

    def measured(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same program with the unknowns x / unit: P x̂ + q̂ and A of size one."""
        return (
            _times(self.x / self.slope, P, 2),
            _times(1 / self.slope, q, 1),
            _times(1 / self.A, A, 2),
            _times(1 / (self.A * self.x), b, 1),
        )

    def restored(self, x: Tensor, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Point, slacks and multipliers (B, ·) of the program as it was: s is measured as A x, Aᵀ y as P x + q."""
        return _times(self.x, x, 1), _times(self.A * self.x, s, 1), _times(self.slope / self.A, y, 1)


def _times(factor: Array, t: Tensor, rank: int) -> Tensor:
    """A factor a sample, or the same for all, times t."""
    if len(factor) == 1:
        return t * float(factor[0]) if factor[0] != 1 else t
    return t * torch.from_numpy(factor).to(t).view(-1, *(1,) * rank)


@np.errstate(all="ignore")
def sizes_of(P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Sizes | None:
    """Sizes of a program min ½ xᵀPx + qᵀx, b − A x in a cone, with the largest entries of its data: None if all of its
    samples are of size one already. Four operators.

    About how large x is: ‖b‖ / ‖A‖ where the curvature would let it be larger, ‖q‖ / ‖P‖; else, as constraints may be
    idle, between both.
    """
    P_, q_, A_, b_ = (_largest(t, r) for t, r in ((P, (-2, -1)), (q, (-1,)), (A, (-2, -1)), (b, (-1,))))
    free, held = _known(q_ / P_), _known(b_ / A_)
    free, held = np.where(np.isnan(free), held, free), np.where(np.isnan(held), free, held)
    x = _power(np.maximum(np.minimum(held, np.sqrt(held) * np.sqrt(free)), UNEQUAL * free))
    slope, rows = _power(np.maximum(q_, P_ * x)), _power(A_)
    sizes = Sizes(x, slope, rows)
    return None if all((size == 1).all() for size in sizes) else sizes


def _largest(t: Tensor, dims: tuple[int, ...]) -> Array:
    if not t.numel():
        return np.zeros(1)
    return np.atleast_1d(array(torch.linalg.vector_norm(t, torch.inf, dim=dims)))


def _known(size: Array) -> Array:
    return np.where((size > 0) & np.isfinite(size), size, np.nan)


def _power(size: Array) -> Array:
    """A power of two near the size, one where this is not far from one, or not known; where the samples are not far
    from each other it is the same for all, (1,), as what they share can stay shared then."""
    known = np.log2(_known(size))
    least, most = np.fmin.reduce(known), np.fmax.reduce(known)
    if not most - least > np.log2(FAR):
        known = np.atleast_1d((most + least) / 2)
    return np.where(np.abs(known) > np.log2(FAR), np.exp2(np.round(known)), 1.0)
