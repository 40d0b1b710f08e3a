"""Programs with a diagonal Hessian: rows, bounds and curvature as generated functions, and how they are solved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields

import torch
from torch import Tensor

from implicitdsl.analysis.diagonal import Diagonal
from implicitdsl.calculus import simplify
from implicitdsl.families.equilibrium.packing import join, pack
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role
from implicitdsl.ir.plan import EQUAL, BlockPlan, Program
from implicitdsl.ir.remake import replace
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program as Source
from implicitdsl.solvers.optimum.bordered import Bordered
from implicitdsl.solvers.optimum.diagonal import LEAST, DiagonalProblem, solve
from implicitdsl.solvers.optimum.quadratic import peak, times
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import CONVERGED, STALLED

from .coefficients import matrix
from .ending import finished, met

ROUGH, SMOOTH = 1e-7, 1e-10
"""Tolerances of the interior point: at the first the Newton steps that follow are near enough as a rule, else at the
second."""

FLOOR = 1e-7
"""Points are not told from zero below this."""
FAR = 1e8
"""Points so far away, relative to start and rows, where the gradient vanishes at last, say that there is no minimum."""
AWAY = 1e20
"""Stands for a bound that is infinite."""


@dataclass(frozen=True)
class Parts:
    """What `rows` and `entries` return: C and d (`coupled`), of which `equalities` rows are equations; then a value for
    every one of `bounds`, (first entry, entries, slope), of which only the first `live` may hold entries; slopes and
    offsets of `edges`, (first entry, entries).
    """

    size: int
    coupled: bool
    equalities: int
    bounds: tuple[tuple[int, int, float], ...]
    live: int
    edges: tuple[tuple[int, int], ...]


def diagonal_of(part: BlockPlan) -> Diagonal | None:
    """The parts of a separable program where its structure is to be used: not beside `nlp(method=newton)`."""
    fact = part.fact("diagonal")
    asked = part.forward[0].get("method")
    return fact.value if fact is not None and isinstance(fact.value, Diagonal) and asked is None else None


def in_order(form: Program, found: Diagonal) -> Program:
    """The program with its bounds behind its rows, as `Bordered` has them."""
    return replace_fields(form, constraints=(*found.rows, *(b.side.constraint for b in found.bounds)))


def diagonal_source(
    found: Diagonal, inputs: Sequence[Expr], functions: Functions, sizes: Mapping[str, int], dims: Sequence[str] = ()
) -> str:
    """The text of `rows` and `entries`, functions of the inputs, and of the point before them."""
    zero = {u: build.zeros(u.shape) for u in found.unknowns}
    point = pack(found.unknowns, found.unknowns[0].name if len(found.unknowns) == 1 else "point", Role.UNKNOWN)
    outputs: list[Expr] = []
    if found.rows:
        bodies = [c.body for c in found.rows]
        C = matrix(bodies, found.unknowns, functions)
        assert C is not None, "without a closed form there are directional derivatives"
        outputs += [C, join([simplify(build.neg(replace(body, zero))) for body in bodies])]
    outputs += [_flat(b.side.bound, found.unknowns[b.at]) for b in found.bounds]
    for edge in found.edges:
        outputs += [_flat(e, found.unknowns[edge.at]) for e in (edge.slope, edge.offset)]
    derivatives = [
        join([_flat(e, u) for e, u in zip(group, found.unknowns, strict=True)])
        for group in (found.gradient, found.curvature)
    ]
    entries = generate(
        "entries", (point.vector, *inputs), derivatives, functions, sizes, definitions=point.definitions, dims=dims
    )
    return "\n\n".join([generate("rows", inputs, outputs, functions, sizes, dims=dims), entries])


def _flat(e: Expr, u: Expr) -> Expr:
    """A vector of the unknown's entries; a number stands for each of them."""
    full = e if e.shape == u.shape else build.mul(e, build.ones(u.shape))
    return join([full])


Known = tuple[Tensor, Bordered] | None
"""A state and the factor there."""

SAME = 1e-9
"""States so near each other, relative to their size, share a factor that is refined."""


def parts_of(found: Diagonal, sizes: Mapping[str, int]) -> Parts:
    """With numbers for dimensions."""
    counts = [math.prod(d.evaluate(sizes) for d in u.shape) for u in found.unknowns]
    first = [sum(counts[:i]) for i in range(len(counts))]
    equal = [c for c in found.rows if c.kind == EQUAL]
    return Parts(
        size=sum(counts),
        coupled=bool(found.rows),
        equalities=sum(math.prod(d.evaluate(sizes) for d in c.body.shape) for c in equal),
        bounds=tuple((first[b.at], counts[b.at], b.side.scale * (1 if b.above else -1)) for b in found.bounds),
        live=sum(not b.idle for b in found.bounds),
        edges=tuple((first[e.at], counts[e.at]) for e in found.edges),
    )


@dataclass(frozen=True)
class Separated:
    """One separable program with its numbers."""

    parts: Parts
    a: Inputs
    problem: DiagonalProblem
    place: Tensor  # (b,), the entries of bounds
    slopes: Tensor  # (b,)
    equal: Tensor  # (k,) bool, the rows that are equations
    sense: Tensor  # (k,)
    every: Tensor  # (B,), the samples

    @classmethod
    def of(cls, parts: Parts, program: Source, a: Inputs, z0: Tensor, root: RootProblem) -> Separated:
        """`z0` (B, n) tells how many samples there are."""
        rows, n = z0.shape
        found = program["rows"](*a)
        outputs = [t.to(z0) for t in (found if isinstance(found, tuple) else (found,))]  # numbers alone are float32
        C, d = (outputs.pop(0), outputs.pop(0)) if parts.coupled else (z0.new_zeros(0, n), z0.new_zeros(0))
        place, slopes, values = z0.new_zeros(0, dtype=torch.int64), z0.new_zeros(0), z0.new_zeros(rows, 0)
        if parts.bounds:
            place = torch.cat([torch.arange(i, i + m, device=z0.device) for i, m, _ in parts.bounds])
            slopes = torch.cat([z0.new_full((m,), s) for _, m, s in parts.bounds])
            values = torch.cat([outputs.pop(0).expand(rows, m) for _, m, _ in parts.bounds], -1).clamp(-AWAY, AWAY)
        low, high = _edges(parts, outputs, z0)

        def entries(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            given = a if len(index) == rows else root.take(a, index)
            slope, curvature = program["entries"](x, *given)
            return (slope, curvature) if slope.ndim == 2 else (slope.expand_as(x), curvature.expand_as(x))

        d = d.expand(rows, d.shape[-1])
        live = sum(m for _, m, _ in parts.bounds[: parts.live])
        bounds = (place[:live], slopes[:live].sign(), values[:, :live])
        problem = DiagonalProblem(entries, C, d, parts.equalities, *bounds, low, high)
        every, equal = (torch.arange(m, device=z0.device) for m in (rows, d.shape[-1]))
        equal = equal < parts.equalities
        return cls(parts, a, problem, place, slopes, equal, 2.0 * equal.to(z0.dtype) - 1, every)

    def solve(
        self, root: RootProblem, z0: Tensor, tol: float | None, max_iter: int
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Known]:
        """State (B, n + k + bounds), status, iterations and ‖F‖ (B,): interior point, then Newton steps on F = 0. And
        the last factor that was made, with its state."""
        found = solve(self.problem, z0, max(ROUGH, tol or 0.0), max_iter)
        state, error, doubtful, last = self._ended(root, found.x, found.y, found.status)
        open_ = (found.status == CONVERGED) & (doubtful | ~(error <= SMOOTH))
        if not bool(open_.any()):
            return (state, found.status, found.iterations, error), last
        open_ = open_ & (doubtful | ~met(root, state, self.a, self.parts.size))
        again = solve(self.problem, z0, SMOOTH, max_iter)
        second, off, unsure, _ = self._ended(root, again.x, again.y, again.status)
        better = open_ & (again.status == CONVERGED) & (off < error)
        state, error = torch.where(better.unsqueeze(-1), second, state), torch.where(better, off, error)
        wrong = torch.where(better, unsure, doubtful) | ~met(root, state, self.a, self.parts.size)
        status = torch.where(open_ & wrong, STALLED, found.status)
        return (state, status, torch.where(open_, again.iterations, found.iterations), error), last

    def judged(self, state: Tensor, status: Tensor, z0: Tensor) -> Tensor:
        """The status, UNBOUNDED where the point has run off, from z0."""
        x = state[:, : self.parts.size]
        if not x.numel() or x.abs().amax().item() <= FAR:  # none can be then
            return status
        far = peak(x) > FAR * (1 + peak(z0, self.problem.d))
        return torch.where(far & ((status == CONVERGED) | (status == STALLED)), int(Outcome.UNBOUNDED), status)

    def _ended(self, root: RootProblem, x: Tensor, y: Tensor, status: Tensor) -> tuple[Tensor, Tensor, Tensor, Known]:
        """The multipliers of bounds are those of the constraints as they are written, zero for those that are idle."""
        k, live, every = self.problem.d.shape[-1], len(self.problem.place), len(self.place)
        if live:
            y = torch.cat([y[:, :k], y[:, k:] / self.slopes[:live].abs()], -1)
        state = torch.cat([x, y, x.new_zeros(len(x), every - live)] if every > live else [x, y], -1)
        last: Known = None

        def step(z: Tensor, F: Tensor) -> Tensor:
            nonlocal last
            last = z, self.factor(z)
            return last[1].solve(F)

        ended = finished(root, state, self.a, status == CONVERGED, step, x.shape[-1], floor=FLOOR)
        return ended.state, ended.error, ended.doubtful, last

    def kept(self, state: Tensor, last: Known) -> Bordered:
        """∂F at a state for the backward pass, which refines: the `last` one if it was made so near that the square of
        what it is off vanishes, on the same active rows and bounds."""
        n = self.parts.size
        if last is not None:
            near = peak((state - last[0])[:, :n]) <= SAME * peak(state[:, :n])
            if bool(near.all()) and all(map(torch.equal, self.active(state), self.active(last[0]))):
                return last[1]
        return self.factor(state)

    def active(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (B, k) and bounds (B, b) that hold with equality at a state."""
        problem, n, k = self.problem, self.parts.size, self.problem.d.shape[-1]
        x, y = state[:, :n], state[:, n : n + k]
        on = self.equal | (y + times(problem.C, x) > problem.d)
        held, live = torch.zeros_like(state[:, n + k :], dtype=torch.bool), len(problem.place)
        if live:
            above = self.slopes[:live] * (x.index_select(1, problem.place) - problem.value)
            held[:, :live] = state[:, n + k : n + k + live] + above > 0
        return on, held

    def factor(self, state: Tensor) -> Bordered:
        """∂F at a state."""
        problem = self.problem
        curvature = problem.entries(state[:, : self.parts.size], self.every)[1].clamp(min=LEAST)
        on, held = self.active(state)
        return Bordered.of(curvature, problem.C, self.sense, on, self.place, self.slopes, held)


def _edges(parts: Parts, outputs: Sequence[Tensor], z0: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Between which (B, n) the objective is defined; None where it is everywhere."""
    ends: list[Tensor | None] = [None, None]
    for (first, count), slope, offset in zip(parts.edges, outputs[::2], outputs[1::2], strict=True):
        at = offset / -slope
        for i, (here, none) in enumerate(((slope > 0, -torch.inf), (slope < 0, torch.inf))):
            if not bool(here.any()):
                continue
            edge = torch.where(here, at, none)
            whole = ends[i]
            if whole is None:
                whole = ends[i] = torch.full_like(z0, none)
            part = whole[:, first : first + count]
            part.copy_(torch.minimum(part, edge) if i else torch.maximum(part, edge))
    return ends[0], ends[1]
