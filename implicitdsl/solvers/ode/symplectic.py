"""Störmer–Verlet and Yoshida's composition of it, for separable equations dq/dt = f(p, t), dp/dt = g(q, t)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Inputs
from .method import Method, Step
from .problem import OdeProblem

CUBE = 2.0 ** (1.0 / 3.0)
YOSHIDA = (1.0 / (2.0 - CUBE), -CUBE / (2.0 - CUBE), 1.0 / (2.0 - CUBE))


@dataclass(frozen=True)
class Symplectic(Method):
    """p ← p + h/2 g(q, t), q ← q + h f(p, t + h/2), p ← p + h/2 g(q, t + h), for each of the parts of h: symplectic,
    time-symmetric, so energies stay bounded over exponentially many steps (Hairer, Lubich & Wanner, Geometric Numerical
    Integration, §I.1, §VI.3; Yoshida, Phys. Lett. A 150, 1990). Order 2 for (1,), 4 for `YOSHIDA`.

    positions: the entries of the state that are q. Cost: 2 evaluations a part.
    """

    positions: tuple[int, ...]
    parts: tuple[float, ...] = (1.0,)

    @property
    def control(self) -> int:
        return 0

    @property
    def order(self) -> int:
        return 2 if len(self.parts) == 1 else 4

    @property
    def evaluations(self) -> int:
        return 2 * len(self.parts)

    def step(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        return self.smooth(problem, a, t, H, y, first)

    def smooth(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        q, p = self._sides(y)
        rate = first
        gone = 0.0
        for part in self.parts:
            middle, gone = gone + 0.5 * part, gone + part
            y = y + 0.5 * part * H * p * rate
            y = y + part * H * q * problem.rate(t if problem.autonomous else t + middle * H[:, 0], y, *a)
            rate = problem.rate(t if problem.autonomous else t + gone * H[:, 0], y, *a)
            y = y + 0.5 * part * H * p * rate
        return Step(y, rate)  # its part of p, all that the next step reads, is that of the new state

    def _sides(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """1 where the state is a position and 0 elsewhere, and the opposite."""
        at = set(self.positions)
        q = torch.tensor([float(k in at) for k in range(y.shape[1])], dtype=y.dtype, device=y.device)
        return q, 1.0 - q
