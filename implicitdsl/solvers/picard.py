"""Fixed-point iteration z ← G(z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance


class PicardState(NamedTuple):
    """Two successive iterates, (B, n)."""

    z: Tensor
    previous: Tensor


@dataclass(frozen=True)
class Picard(Iteration):
    """z ← z + damping·(G(z) - z); without a fixed-point form, G(z) = z - F(z).

    Converges where the spectral radius of (1 - damping) I + damping·∂G/∂z is below 1, linearly with that rate; the
    damping does not change the root. Cost: one G a step, a residual test every few. Source: Banach (1922);
    Krasnosel'skij (1955) for damping below 1.
    """

    tol: float | None = None
    max_iter: int = 5000
    damping: float = 1.0

    measures_start: ClassVar[bool] = True

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        # a test costs about as much as one or two steps where they are small, and a tenth of a large one
        every = 7 if n <= 64 else 3 if n <= 256 else 2 if n <= 1024 else 1
        # a nilpotent ∂G/∂z carries news by one coordinate a step, so no progress for n steps is no stall yet
        return Rule(tolerance(self.tol, dtype), every, max(96, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> PicardState:
        return PicardState(self._advance(problem, z0, a), z0)

    def step(self, problem: RootProblem, a: Inputs, state: PicardState) -> PicardState:
        return PicardState(self._advance(problem, state.z, a), state.z)

    def advance(self, problem: RootProblem, a: Inputs, state: PicardState, count: int) -> PicardState:
        z, previous = state
        if problem.stepped is not None and self.damping == 1.0:
            step = problem.stepped()
            for _ in range(count):
                z, previous = step(z), z
        else:
            for _ in range(count):
                z, previous = self._advance(problem, z, a), z
        return PicardState(z, previous)

    def view(self, state: PicardState) -> View:
        return self._seen(state, norm(state.z - state.previous))

    def glance(self, state: PicardState) -> View | None:
        return self._seen(state, torch.linalg.vector_norm(state.z - state.previous, dim=-1))

    def _seen(self, state: PicardState, error: Tensor) -> View:
        return View(state.z, error if self.damping == 1.0 else error / self.damping)

    def _advance(self, problem: RootProblem, z: Tensor, a: Inputs) -> Tensor:
        g = problem.G(z, a)
        return g if self.damping == 1.0 else torch.lerp(z, g, self.damping)
