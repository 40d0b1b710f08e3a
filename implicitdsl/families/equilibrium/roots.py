"""Which root: the sets of the unknowns as a start, a box, and a test of what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.ir.model import SetInfo
from implicitdsl.lowering import sets
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.transient import transient
from implicitdsl.solvers.verdict import Solved

_OUTSIDE, _NOT_FINITE = int(Outcome.OUTSIDE), int(Outcome.NOT_FINITE)

CONES = frozenset(("positive", "nonneg", "PSD", "PD"))
SCALES = (1.0, 10.0, 100.0, 1000.0)
"""Multiples of an inner point that are tried too where all sets are cones: these have no scale of their own."""
DENSE = 64
"""Up to this many unknown numbers a flow is followed as well."""


@dataclass(frozen=True)
class Region:
    """The set of one unknown and its name: `lo`, `hi` bound every entry."""

    set: sets.Parametrization | None  # None: all of R^…
    shape: tuple[int, ...]
    lo: float
    hi: float
    name: str = "R"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def start(self) -> Tensor:
        """An element of the set, flattened: zeros if they belong to it, the middle of an interval, 1 from the end of a
        half-line."""
        zeros = torch.zeros(self.shape, dtype=torch.float64)
        if self.set is None:
            return zeros.flatten()
        if math.isfinite(self.lo) and math.isfinite(self.hi):
            return zeros.flatten() + (self.lo + self.hi) / 2
        if math.isfinite(self.lo):
            return zeros.flatten() + self.lo + 1
        if math.isfinite(self.hi):
            return zeros.flatten() + self.hi - 1
        if bool(self.set.contains(zeros).all()):
            return zeros.flatten()
        if len(self.shape) == 2 and self.shape[0] >= self.shape[1]:
            return torch.eye(*self.shape, dtype=torch.float64).flatten()
        mean = zeros + 1 / max(self.shape[-1], 1)
        return (mean if bool(self.set.contains(mean).all()) else mean * self.shape[-1] ** 0.5).flatten()

    def unit(self) -> Tensor:
        """An element in the middle of a cone, flattened: the identity, or ones; zeros of a space."""
        if self.set is None:
            return torch.zeros(self.size, dtype=torch.float64)
        if self.name in ("PSD", "PD"):
            return torch.eye(self.shape[-1], dtype=torch.float64).expand(self.shape).flatten()
        return torch.ones(self.size, dtype=torch.float64)


def region(info: SetInfo, shape: tuple[int, ...]) -> Region:
    """The region of an unknown's set."""
    bounds = {"positive": (0.0, math.inf), "nonneg": (0.0, math.inf), "simplex": (0.0, 1.0)}
    lo, hi = bounds.get(info.name, (-math.inf, math.inf))
    if info.name in ("open", "closed"):
        lo, hi = info.args[0], info.args[1]
    made = None if info.name == "R" else sets.make(info.name, shape, info.args)
    if info.name == "simplex":  # its box is no interval to bisect
        lo, hi = -math.inf, math.inf
    return Region(made, shape, lo, hi, info.name)


class Regions:
    """The sets of all unknowns, packed as the unknowns are."""

    def __init__(self, regions: Sequence[Region], *, at_zero: bool = False) -> None:
        self.regions = tuple(regions)
        self.free = all(r.set is None for r in self.regions)
        self.size = sum(r.size for r in self.regions)
        starts = torch.cat([r.start() for r in self.regions])
        self._start = None if at_zero or not bool(starts.any()) else starts

    def start(self, like: Tensor) -> Tensor:
        """(N,)."""
        return like.new_zeros(self.size) if self._start is None else self._start.to(like)

    def others(self, z0: Tensor) -> list[Tensor]:
        """More elements of the sets to start from, like z0 (B, N)."""
        if self.free or not all(r.set is None or r.name in CONES for r in self.regions):
            return []
        inside = torch.cat([r.unit() for r in self.regions]).to(z0)
        return [(scale * inside).expand_as(z0).clone() for scale in SCALES]

    def box(self, like: Tensor) -> tuple[float | Tensor | None, float | Tensor | None]:
        """Lower and upper bounds, numbers where they are the same for all entries, None where there are none."""
        return self._bound([r.lo for r in self.regions], like), self._bound([r.hi for r in self.regions], like)

    def _bound(self, ends: Sequence[float], like: Tensor) -> float | Tensor | None:
        if not any(math.isfinite(e) for e in ends):
            return None
        if len(set(ends)) == 1:
            return ends[0]
        return torch.cat([like.new_full((r.size,), e) for r, e in zip(self.regions, ends, strict=True)])

    def contain(self, z: Tensor) -> Tensor:
        """Whether each row (B, N) lies in the sets, to the rounding that a solve leaves."""
        tol = math.sqrt(torch.finfo(z.dtype).eps)
        inside = torch.ones(z.shape[0], dtype=torch.bool, device=z.device)
        at = 0
        for r in self.regions:
            part = z[:, at : at + r.size].reshape(z.shape[0], *r.shape)
            at += r.size
            if r.set is not None:
                inside = inside & r.set.contains(part, tol)
        return inside


@dataclass(frozen=True)
class Inside(Solver):
    """Runs `inner`; a solution outside its set ends as OUTSIDE.

    Rows that end so, or without a solution, start anew from a few other elements of cones, where the first start may
    lead to a root outside: of a Riccati equation to one that is not the positive one. While `torch.compile` traces, the
    first start is the only one.
    """

    inner: Solver
    regions: Regions

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        found = self._judged(problem, z0, a)
        if torch.compiler.is_compiling() or bool(found.converged.all()):
            return found
        starts: list[Callable[[Tensor, Inputs], Tensor]] = []
        if z0.shape[-1] <= DENSE:
            starts += [partial(transient, problem, sign=s, inside=self.regions.contain) for s in (1.0, -1.0)]
        starts += [partial(_constant, s) for s in self.regions.others(z0)]
        for start in starts:
            rows = (~found.converged & (found.status != _NOT_FINITE)).nonzero().view(-1)
            if not len(rows):
                break
            some = problem.take(a, rows)
            more = self._judged(problem, start(z0.index_select(0, rows), some), some)
            found = _with(found, more, rows)
        return found

    def _judged(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        solved = self.inner.solve(problem, z0, a)
        wrong = solved.converged & ~self.regions.contain(solved.z)
        return solved._replace(status=torch.where(wrong, _OUTSIDE, solved.status))


def _constant(start: Tensor, z: Tensor, _: Inputs) -> Tensor:
    return start[: len(z)]


def _with(found: Solved, more: Solved, rows: Tensor) -> Solved:
    """`found` with the rows that another start has solved; the work of all adds up."""
    solved = more.converged
    fields: list[Tensor] = []
    for old, new in zip(found[:5], more[:5], strict=True):
        here = old.index_select(0, rows)
        mask = solved.view(-1, *(1,) * (new.ndim - 1))
        fields.append(old.index_copy(0, rows, torch.where(mask, new, here)))
    z, status, _, residual, _ = fields
    iterations = found.iterations.index_add(0, rows, more.iterations)
    nfe = found.nfe.index_add(0, rows, more.nfe)
    return Solved(z, status, iterations, residual, nfe, None, found.rung)
