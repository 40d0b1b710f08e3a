"""Solvers of programs as operators of compiled graphs, which run what runs eagerly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.solvers.carries import operator
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.named import digest, name, named
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import Solved


@dataclass(frozen=True)
class InGraph(Solver):
    """What is `named` by a key, in a compiled graph. Its results have no factor."""

    key: str

    @classmethod
    def of(cls, content: object, solve: Callable[[Tensor, Inputs], Solved]) -> InGraph:
        """`solve` (z0, a) -> the solution; `content` is all that it is made of."""
        key = digest(content)
        name(key, solve)
        return cls(key)

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return Solved(*_solve_program(self.key, z0, list(a)))


def _called(key: str, z0: Tensor, a: list[Tensor]) -> list[Tensor]:
    found = named(key)(z0, tuple(a))
    return [t.clone(memory_format=torch.contiguous_format) for t in found[:5]]


def _like(key: str, z0: Tensor, a: list[Tensor]) -> list[Tensor]:
    status, iterations, nfe = (z0.new_empty(z0.shape[0], dtype=torch.int64) for _ in range(3))
    return [z0.new_empty(z0.shape), status, iterations, z0.new_empty(z0.shape[0]), nfe]


_solve_program = operator("solve_program(str key, Tensor z0, Tensor[] a) -> Tensor[]", _called, _like)
