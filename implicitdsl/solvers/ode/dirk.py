"""Diagonally implicit Runge–Kutta methods with an explicit first stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transformed

from ..factor import decompose, inverse, substitute
from ..problem import Inputs
from .method import Method, Step
from .problem import OdeProblem
from .tableau import Row

SIMPLE, FULL = 6, 14
"""Newton steps with the Jacobian of the step's beginning, and those with one of their own after that."""


@dataclass(frozen=True)
class DirkTableau:
    """z_i = y + h Σ_{j<i} a_ij k_j + h γ k_i, k_i = f(t + c_i h, z_i) for i = 2, 3, …; the last stage is the new state.

    a: rows without their diagonal γ; error, control: as in `Tableau`.
    """

    name: str
    order: int
    gamma: float
    c: Row
    a: tuple[Row, ...]
    error: Row | None = None
    control: int = 0


IMPLICIT_EULER = DirkTableau("implicit_euler", 1, 1.0, (1.0,), ((0.0,),))
"""L-stable."""
TRAPEZOID = DirkTableau("trapezoid", 2, 0.5, (1.0,), ((0.5,),))
"""A-stable."""

G = 0.26
_A6 = (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676)
_A7 = (
    0.13659751177640291,
    0.0,
    -0.05496908796538376,
    -0.04118626728321046,
    0.62993304899016403,
    0.06962479448202728,
)
KVAERNO5 = DirkTableau(
    "kvaerno5",
    5,
    G,
    (0.52, 1.230333209967908, 0.8957659843500759, 0.43639360985864756, 1.0, 1.0),
    (
        (G,),
        (0.13, 0.84033320996790809),
        (0.22371961478320505, 0.47675532319799699, -0.06470895363112615),
        (0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998),
        _A6,
        _A7,
    ),
    error=(*(b - e for b, e in zip(_A7, (*_A6, G), strict=True)), G),
    control=5,
)
"""Order 5(4), A- and L-stable, stiffly accurate (Kværnø, BIT 44, 2004)."""


@dataclass(frozen=True)
class Dirk(Method):
    """A method of a `DirkTableau`. Stages are solved by Newton's method to rounding, with the Jacobian at the beginning
    of the step and one LU; rows that this does not bring there get a Jacobian at every iterate. A row without a
    solution gets NaN, so that its step is refused. Cost: some 4 evaluations a stage, a Jacobian and 2/3 n³ a step.
    """

    tableau: DirkTableau

    @property
    def implicit(self) -> bool:
        return True

    @property
    def control(self) -> int:
        return self.tableau.control

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def evaluations(self) -> int:
        return 4 * len(self.tableau.c) + 1

    def step(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        return self._stages(problem, a, t, H, y, first, smooth=False)

    def smooth(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        return self._stages(problem, a, t, H, y, first, smooth=True)

    def _stages(
        self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor, smooth: bool
    ) -> Step:
        tableau, K, z = self.tableau, [first * H], y
        held = _Stage(problem, tableau.gamma, tuple(x.detach() for x in a), H.detach())
        held.factor(t.detach(), y.detach())
        for c, row in zip(tableau.c, tableau.a, strict=True):
            base = y
            for w, k in zip(row, K, strict=True):
                base = base + w * k if w else base
            at = t if problem.autonomous else t + c * H[:, 0]
            z = held.solve(at.detach(), base.detach(), z.detach())
            if smooth:  # two steps of Newton's method whose value is zero carry the derivatives of the solution
                inverted = held.inverse(at.detach(), z)
                for _ in range(2):
                    gap = z - base - tableau.gamma * H * problem.rate(at, z, *a)
                    z = z - (inverted @ gap.unsqueeze(-1)).squeeze(-1)
            K.append((z - base) / tableau.gamma)
        last = problem.rate(t if problem.autonomous else t + H[:, 0], z, *a)
        error = None
        if tableau.error is not None:
            error = tableau.error[0] * K[0]
            for w, k in zip(tableau.error[1:], K[1:], strict=True):
                error = error + w * k
        return Step(z, last, error)


class _Stage:
    """z = base + γ h f(t, z) for every row."""

    def __init__(self, problem: OdeProblem, gamma: float, a: Inputs, H: Tensor) -> None:
        self.problem, self.a, self.scale = problem, a, gamma * H
        self.factored: tuple[Tensor, Tensor] | None = None

    def matrix(self, t: Tensor, z: Tensor) -> Tensor:
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return eye - self.scale.unsqueeze(-1) * self.problem.matrix(t, z, self.a)

    def factor(self, t: Tensor, z: Tensor) -> None:
        with torch.no_grad():
            self.factored = decompose(self.matrix(t, z))

    def inverse(self, t: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return inverse(self.matrix(t, z).detach()).detach()

    def solve(self, t: Tensor, base: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            if torch.compiler.is_compiling():
                return self._chord(t, base, z)
            if transformed():
                return self._blindly(t, base, z)
            return self._watched(t, base, z)

    def _newton(self, t: Tensor, base: Tensor, z: Tensor) -> Tensor:
        assert self.factored is not None
        gap = z - base - self.scale * self.problem.rate(t, z, *self.a)
        return substitute(*self.factored, gap.unsqueeze(-1)).squeeze(-1)

    def _blindly(self, t: Tensor, base: Tensor, z: Tensor) -> Tensor:
        """Without a look at the numbers, which belong to a transform; the steps are known to be good."""
        for _ in range(FULL):
            gap = z - base - self.scale * self.problem.rate(t, z, *self.a)
            z = z - (self.inverse(t, z) @ gap.unsqueeze(-1)).squeeze(-1)
        return z

    def _chord(self, t: Tensor, base: Tensor, z: Tensor) -> Tensor:
        """With the Jacobian of the step's beginning alone, to √eps or NaN: what a compiler can unroll."""
        change = z
        for _ in range(FULL):
            change = self._newton(t, base, z)
            z = z - change
        size = torch.linalg.vector_norm(z, dim=1, keepdim=True) + 1e-30
        left = torch.linalg.vector_norm(change, dim=1, keepdim=True)
        return torch.where(left <= torch.finfo(z.dtype).eps ** 0.5 * size, z, torch.nan)

    def _watched(self, t: Tensor, base: Tensor, z: Tensor) -> Tensor:
        """To rounding: what is left after a correction δ that is ρ times the one before is at most ρ δ / (1 − ρ)."""
        tol = 64 * torch.finfo(z.dtype).eps
        held, done = self.factored, torch.zeros_like(z[:, :1], dtype=torch.bool)
        before: Tensor | None = None
        for k in range(SIMPLE + FULL):
            if k >= SIMPLE:
                self.factor(t, z)
            change = self._newton(t, base, z)
            size = torch.linalg.vector_norm(change, dim=1, keepdim=True)
            z = torch.where(done, z, z - change)
            left = size
            if before is not None:
                rate = (size / before).clamp(max=0.5)
                left = torch.where(rate < 0.5, size * rate / (1 - rate), size)
            # NaN counts as done: nothing helps it
            done = done | ~(left > tol * (torch.linalg.vector_norm(z, dim=1, keepdim=True) + 1e-30))
            if bool(done.all()):
                break
            before = size
        self.factored = held
        return torch.where(done, z, torch.nan)
