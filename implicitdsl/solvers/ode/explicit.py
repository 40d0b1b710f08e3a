"""A step of an explicit Runge–Kutta method, and its transpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..problem import Inputs
from .method import Method, Step
from .problem import Found, OdeProblem
from .tableau import Row, Tableau

LIMIT = 2.8
"""|h| ρ stays below: the discrete adjoint of steps at the border of stability amplifies what the states damp."""

NOISE = 16
"""Differences of fewer rounding errors say nothing of ρ."""

_coefficients: dict[Any, Any] = {}


@dataclass(frozen=True)
class Explicit(Method):
    """The method of a tableau. Cost: `tableau.stages` evaluations a step."""

    tableau: Tableau

    @property
    def control(self) -> int:
        return self.tableau.control

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def evaluations(self) -> int:
        return self.tableau.stages

    @property
    def interpolant(self) -> tuple[Row, ...] | None:
        return self.tableau.interpolant

    @property
    def limit(self) -> float | None:
        return LIMIT if self.tableau.same_time else None

    def step(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        rows, error, low, _ = coefficients(self.tableau, y)
        count, (b, n) = self.tableau.stages, y.shape
        K, Z = y.new_empty(count + 1, b, n), y.new_empty(count + 1, b, n)
        flat, base, last = K.view(count + 1, -1), y.reshape(1, -1), first
        states, rates = Z.unbind(0), K.unbind(0)
        states[0].copy_(y)
        torch.mul(first, H, out=rates[0])
        moving, reuse = None if problem.autonomous else H[:, 0], problem.reuse
        kept: list[Found] = []
        for i, c in enumerate(self.tableau.c):
            torch.addmm(base, rows[i], flat[: i + 1], out=states[i + 1].view(1, -1))
            at = t if moving is None else t + c * moving
            if reuse is None:
                last = problem.rate(at, states[i + 1], *a)
            else:
                last, found = reuse.rate(at, states[i + 1], *a)
                kept.append(found)
            torch.mul(last, H, out=rates[i + 1])
        found = Step(states[-1], last, K=K, Z=Z, kept=tuple(kept) if reuse is not None else None)
        if error is None:
            return found
        found = found._replace(error=torch.mm(error, flat).view(b, n))
        if low is not None:
            found = found._replace(low=torch.mm(low, flat).view(b, n))
        return found if self.limit is None else found._replace(**_stiffness(K, Z, problem.measured))

    def smooth(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        return self._smooth(problem, a, t, H, y, first)[0]

    def recorded(
        self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor
    ) -> tuple[Step, tuple[Tensor, ...]]:
        """`smooth`, and of its stages but the first and the last: states, and what `Reuse.rate` hands on, each
        (s − 1, b, …).
        """
        step, Z, kept = self._smooth(problem, a, t, H, y, first)
        return step, tuple(map(torch.stack, (Z[1:-1], *zip(*kept[:-1], strict=True))))

    def _smooth(
        self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor
    ) -> tuple[Step, list[Tensor], list[Found]]:
        K, Z, last = [first * H], [y], first
        kept: list[Found] = []
        for c, row in zip(self.tableau.c, self.tableau.weights, strict=True):
            total = y
            for j, w in row:
                total = total + w * K[j]
            Z.append(total)
            last, found = problem.kept_rate(t if problem.autonomous else t + c * H[:, 0], total, a)
            kept.append(found)
            K.append(last * H)
        error, low = (None if w is None else combined(w, K) for w in (self.tableau.error, self.tableau.low))
        found = Step(Z[-1], last, error, low, torch.stack(K))
        return found if self.limit is None else found._replace(**_stiffness(K, Z, problem.measured)), Z, kept

    def times(self, t: Tensor, H: Tensor) -> Tensor:
        """Times of all stages, (s + 1, b)."""
        c = torch.tensor((0.0, *self.tableau.c), dtype=t.dtype, device=t.device)
        return torch.addcmul(t, c.unsqueeze(1), H[:, 0])

    def again(
        self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Found, ...] | None]:
        """(Z, kept) of the step, computed again; kept at the first stage too."""
        if problem.reuse is None:
            first, start = problem.rate(t, y, *a), ()
        else:
            first, start = problem.reuse.rate(t, y, *a)
        found = self.step(problem, a, t, H, y, first)
        assert found.Z is not None
        return found.Z, None if found.kept is None else (start, *found.kept)

    def transpose(
        self,
        problem: OdeProblem,
        a: Inputs,
        t: Tensor,
        H: Tensor,
        Z: Tensor,
        u: Tensor,
        dense: Tensor | None,
        kept: tuple[Found, ...] | None = None,
    ) -> tuple[Tensor, Tensor, list[Found]]:
        """(cotangent of y, cotangents of the stages' rates (s, b, N), `more` of each) for that of the new state, u.

        `dense` (s, b, N): what interpolated outputs add to the cotangents of the stages' rates, over H. `kept`: of all
        stages; without it there is no `more`, see `Reuse`.
        """
        rows = coefficients(self.tableau, u)[3]
        count, (b, n) = self.tableau.stages, u.shape
        held = u.new_empty(count + 1, b, n)
        flat, back = held.view(count + 1, -1), held.unbind(0)
        bars = u.new_zeros(count + 1, b, n) if dense is not None else u.new_empty(count, b, n)
        moving = None if problem.autonomous else H[:, 0]
        back[0].copy_(u)
        times = (0.0, *self.tableau.c)
        reuse = problem.reuse if kept is not None else None
        more: list[Found] = [()] * len(bars)

        def pulled(j: int, bar: Tensor) -> Tensor:
            at = t if moving is None else t + times[j] * moving
            if reuse is None or kept is None:
                return problem.pull_state(at, Z[j], bar, a)
            found, more[j] = reuse.pull(at, Z[j], bar, kept[j], *a)
            return found

        if dense is not None:
            torch.mul(dense[count], H, out=bars[count])
            back[0].add_(pulled(count, bars[count]))
        each = bars.unbind(0)
        for q, j in enumerate(range(count - 1, -1, -1)):
            bar = each[j]
            torch.mm(rows[j], flat[: q + 1], out=bar.view(1, -1))
            if dense is not None:
                bar.add_(dense[j])
            bar.mul_(H)
            back[q + 1].copy_(pulled(j, bar))
        return held.sum(0), bars, more


def combined(weights: Row, K: list[Tensor]) -> Tensor:
    """Σ w_i K_i."""
    return sum((w * k for w, k in zip(weights[1:], K[1:], strict=True) if w), weights[0] * K[0])


def _stiffness(K: Tensor | list[Tensor], Z: Tensor | list[Tensor], measured: int | None) -> dict[str, Tensor]:
    """stiffness: |h| ρ = ‖K_last − K_before‖ / ‖Z_last − Z_before‖ of stages at one time, (b, 1); NaN where they are
    equal (Hairer & Wanner II, §IV.2). sure: their difference is more than rounding, which has any direction.
    """
    apart, change, size = Z[-1] - Z[-2], K[-1] - K[-2], Z[-1]
    if measured is not None:
        apart, change, size = (x[:, :measured] for x in (apart, change, size))
    apart, change, size = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (apart, change, size))
    return {
        "stiffness": torch.where(apart > 0, change / apart, torch.nan),
        "sure": apart > NOISE * torch.finfo(size.dtype).eps * size,
    }


def coefficients(tableau: Tableau, like: Tensor) -> tuple[list[Tensor], Tensor | None, Tensor | None, list[Tensor]]:
    """Rows of a, error, low, and for each stage j the column (b_j, a_{s-1,j}, …, a_{j+1,j}) of the transpose."""
    key = (tableau.name, like.dtype, like.device)
    found = _coefficients.get(key)
    if found is None:

        def row(values: Row | list[float]) -> Tensor:
            return torch.tensor([values], dtype=like.dtype, device=like.device)

        a, count = tableau.a, tableau.stages
        back = [row([a[-1][j], *(a[i - 1][j] for i in range(count - 1, j, -1))]) for j in range(count)]
        error = None if tableau.error is None else row(tableau.error)
        low = None if tableau.low is None else row(tableau.low)
        found = ([row(r) for r in a], error, low, back)
        _coefficients[key] = found
    return found
