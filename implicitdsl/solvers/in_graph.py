"""Solvers as operators of compiled graphs, which run what runs eagerly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .carries import operator
from .factor import Factor
from .loop import Solver
from .named import digest, name, named
from .problem import Inputs, RootProblem
from .verdict import Solved


@dataclass(frozen=True)
class InGraph(Solver):
    """What is `named` by a key, in a compiled graph. `kept`: results have a dense LU, otherwise no factor."""

    key: str
    kept: bool = False

    @classmethod
    def of(cls, content: object, solve: Callable[[Tensor, Inputs], Solved], kept: bool = False) -> InGraph:
        """`solve` (z0, a) -> the solution; `content` is all that it is made of."""
        key = digest(content)
        name(key, solve)
        return cls(key, kept)

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        z, status, iterations, residual, nfe, *kept = _solve_program(self.key, z0, list(a), self.kept)
        return Solved(z, status, iterations, residual, nfe, Factor(kept[0], kept[1]) if self.kept else None)


def _called(key: str, z0: Tensor, a: list[Tensor], kept: bool) -> list[Tensor]:
    found = named(key)(z0, tuple(a))
    factor = (found.factor.lu, found.factor.pivots) if kept else ()
    return [t.clone(memory_format=torch.contiguous_format) for t in (*found[:5], *factor)]


def _like(key: str, z0: Tensor, a: list[Tensor], kept: bool) -> list[Tensor]:
    rows, n = z0.shape
    status, iterations, nfe = (z0.new_empty(rows, dtype=torch.int64) for _ in range(3))
    found = [z0.new_empty(z0.shape), status, iterations, z0.new_empty(rows), nfe]
    if not kept:
        return found
    return [*found, z0.new_empty(rows, n, n), z0.new_empty(rows, n, dtype=torch.int32)]


_solve_program = operator("solve_program(str key, Tensor z0, Tensor[] a, bool kept) -> Tensor[]", _called, _like)
