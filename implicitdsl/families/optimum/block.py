"""One `argmin` of a quadratic program at run time: coefficients by autograd, the solve, duals, the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.backward.kkt import Spec, quadratic_optimum
from implicitdsl.backward.rules import plain
from implicitdsl.backward.smoothed import Smoothing, smoothed_optimum
from implicitdsl.families.call import kind_of
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.solvers.optimum.cones import svec_matrix
from implicitdsl.solvers.optimum.quadratic import Optimum, Quadratic, weakly_active
from implicitdsl.solvers.verdict import CONVERGED, NOT_FINITE, Solved

from .evaluate import Evaluate
from .guess import Wish, guess
from .samples import Ranked, mark, screened


@dataclass(frozen=True)
class Rows:
    """The rows [start, stop) of C that a constraint has, of which one in `step` carries the multiplier; `sign` is its
    sign in the multiplier of its label."""

    start: int
    stop: int
    shape: tuple[int, ...]
    label: str | None
    sign: float
    step: int = 1


def triangles(rows: int, matrices: Sequence[tuple[int, int]]) -> Tensor:
    """(m, rows), float64: as many numbers, of which those from `first` on are a symmetric matrix of order k for each of
    the `matrices` (first, k), with `svec` vectors in the place of these. Its transpose takes multipliers back."""
    blocks: list[Tensor] = []
    at = 0
    for first, k in matrices:
        blocks += [torch.eye(first - at, dtype=torch.float64), svec_matrix(k)]
        at = first + k * k
    return torch.block_diag(*blocks, torch.eye(rows - at, dtype=torch.float64))


@dataclass(frozen=True)
class Recipe:
    """All that is known of a block before tensors come. `duals`: the key and the label of each multiplier asked for;
    `given`: what the coefficients are computed of, with core ranks; `smoothing`: derivatives are its; `wish`: where to
    begin.
    """

    coefficients: Evaluate
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    rows: tuple[Rows, ...]
    duals: tuple[tuple[str, str], ...]
    spec: Spec
    method: str
    given: tuple[Ranked, ...]
    smoothing: Smoothing | None = None
    wish: Wish | None = None


class OptimumBlock:
    """Runs a recipe. Stateless; pickles."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated source."""
        return (self.recipe.coefficients.program.text,)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`. The solve is in float64, whatever the inputs are."""
        kind = kind_of(values)
        clean, lost = screened(values, self.recipe.given)
        P, q, C, d = self.recipe.coefficients(clean, functions)
        if lost is not None:
            q = torch.where(lost.unsqueeze(-1), torch.nan, q)
        near = None
        if plain() and (start is not None or self.recipe.wish is not None):
            rows = Quadratic(P, q, C, d, self.recipe.spec.equalities).rows
            near = guess(self.recipe.wish, start, clean, self.recipe.unknowns, q, rows)
        try:
            if self.recipe.smoothing is None:
                z, y, optimum = quadratic_optimum(self.recipe.spec, P, q, C, d, near)
            else:
                z, y, optimum = smoothed_optimum(self.recipe.spec, self.recipe.smoothing, P, q, C, d)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                lost = error.solution
                y = lost.z.new_full((lost.z.shape[0], C.shape[-2]), torch.nan)
                error.solution = self._unpacked(lost.z, y, batch, kind), report(lost, None, batch, self.recipe.method)
            raise
        if self.recipe.spec.failures.policy == "nan":
            solved = Solved(z, optimum.status, optimum.iterations, optimum.residual, optimum.iterations)
            z, y = mark((z, y), solved, values, self.recipe.given)
        found = self._unpacked(z, y, batch, kind)
        if not want_report:
            return found, None
        curved = None if P is None else P.detach()
        problem = Quadratic(curved, q.detach(), C.detach(), d.detach(), self.recipe.spec.equalities)
        return found, report(optimum, weakly_active(problem, optimum.z, optimum.y), batch, self.recipe.method)

    def _unpacked(self, z: Tensor, y: Tensor, batch: int | None, kind: torch.dtype) -> dict[str, Tensor]:
        """The unknowns by name, and the multipliers that are asked for."""
        shared = z.shape[0] == 1 and batch != 1
        found = named_parts(z, self.recipe.unknowns, shared, kind)
        for key, label in self.recipe.duals:
            parts = [r for r in self.recipe.rows if r.label == label]
            total = sum(r.sign * y[:, r.start : r.stop] for r in parts)
            assert isinstance(total, Tensor)
            found[key] = shaped(total, parts[0].shape, shared, kind)
        return found


def shaped(flat: Tensor, shape: tuple[int, ...], shared: bool, kind: torch.dtype) -> Tensor:
    """Rows of numbers as values of a shape; `shared`: one for the whole batch."""
    value = flat.to(kind)
    if shared:
        return value[0].reshape(shape)
    return value if value.shape[1:] == shape else value.reshape(-1, *shape)


def named_parts(
    flat: Tensor, names: Sequence[tuple[str, tuple[int, ...]]], shared: bool, kind: torch.dtype
) -> dict[str, Tensor]:
    """The leading numbers of rows (B, N) as values by name and shape, one after another."""
    found: dict[str, Tensor] = {}
    at = 0
    for name, shape in names:
        count = math.prod(shape)
        part = flat if count == flat.shape[-1] else flat[:, at : at + count]
        found[name] = shaped(part, shape, shared, kind)
        at += count
    return found


def report(found: Solved | Optimum, weak: Tensor | None, batch: int | None, method: str) -> Report:
    """A block's report, one entry a sample."""
    message = ""
    if weak is not None and bool((weak > 0).any()):
        count, most = int((weak > 0).sum()), int(weak.max())
        who = "1 sample has" if count == 1 else f"{count} samples have"
        message = f"{who} weakly active constraints (up to {most}): one-sided derivatives there"

    def sized(t: Tensor) -> Tensor:
        t = t.detach()
        if batch is None:
            return t[0]
        return t if t.shape[0] == batch else t.expand(batch)

    return Report(
        sized(found.status == CONVERGED),
        sized(found.status),
        sized(found.iterations),
        sized(found.residual.masked_fill(found.status == NOT_FINITE, torch.nan)),
        sized(found.iterations),
        method,
        message,
    )
