"""Levenberg–Marquardt on singular, over-determined and under-determined systems with known answers."""

from __future__ import annotations

import pytest
import torch
from root_problems import CIRCLE, SHIFT, SQUARE_ROOT, inputs
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.levenberg_marquardt import LevenbergMarquardt
from implicitdsl.solvers.problem import RootProblem
from implicitdsl.solvers.verdict import Solved

F64 = torch.float64
TIMES = torch.linspace(0, 1, 9, dtype=F64)
FIT = RootProblem(residual=lambda z, y: z[:, :1] * torch.exp(z[:, 1:] * TIMES) - y, ranks=(1,))
"""Nine values of z₀ exp(z₁ t): nine equations for two unknowns."""


def run(problem: RootProblem, a: Tensor, start: Tensor, **options: float) -> Solved:
    return LevenbergMarquardt(**options).solve(problem, start, (a,))  # type: ignore[arg-type]  # tol only


def outcomes(solved: Solved) -> list[Outcome]:
    return [Outcome(s) for s in solved.status.tolist()]


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_linear_least_squares_equal_the_normal_equations(scale: float) -> None:
    matrix, y = inputs(9, 3), scale * inputs(4, 9, seed=2)
    problem = RootProblem(residual=lambda z, y: z @ matrix.T - y, jacobian=lambda z, y: matrix, ranks=(1,))
    solved = run(problem, y, torch.zeros(4, 3, dtype=F64))
    exact = torch.linalg.solve(matrix.T @ matrix, matrix.T @ y.T).T
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z - exact).norm() < 1e-13 * exact.norm()
    assert solved.factor is None


def test_an_exponential_fit_is_stationary_and_least() -> None:
    y = 2 * torch.exp(-1.3 * TIMES) + 0.1 * inputs(4, 9)
    solved = run(FIT, y, torch.ones(4, 2, dtype=F64))
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    z = solved.z.clone().requires_grad_()
    cost = FIT.F(z, (y,)).square().sum(-1)
    assert torch.autograd.grad(cost.sum(), z)[0].abs().max() < 1e-11
    for shift in torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(0), dtype=F64):
        assert (FIT.F(solved.z + 1e-3 * shift, (y,)).square().sum(-1) > cost).all()


def test_consistent_equations_are_solved_exactly() -> None:
    truth = torch.tensor([[2.0, -1.3], [0.5, 0.7]], dtype=F64)
    y = truth[:, :1] * torch.exp(truth[:, 1:] * TIMES)
    solved = run(FIT, y, torch.ones(2, 2, dtype=F64))
    assert outcomes(solved) == [Outcome.CONVERGED] * 2
    assert (solved.z - truth).abs().max() < 1e-12


def test_a_residual_that_only_flattens_out_is_no_solution() -> None:
    weights = torch.tensor([1.0, 2.0], dtype=F64)
    problem = RootProblem(residual=lambda z, a: torch.exp(z) * weights + a, ranks=(1,))
    solved = run(problem, torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64))
    assert not solved.converged.any()


def test_fewer_equations_than_unknowns_give_a_point_of_the_set() -> None:
    problem = RootProblem(residual=lambda z, r: z.square().sum(-1, keepdim=True) - r, ranks=(1,))
    solved = run(problem, torch.tensor([[1.0], [4.0], [-1.0]], dtype=F64), torch.zeros(3, 3, dtype=F64))
    assert outcomes(solved) == [Outcome.CONVERGED, Outcome.CONVERGED, Outcome.STALLED]
    assert (solved.z[:2].norm(dim=-1) - torch.tensor([1.0, 2.0], dtype=F64)).abs().max() < 1e-12


def test_a_singular_start_is_left() -> None:
    a = torch.tensor([[0.6], [0.8], [0.0], [-0.28]], dtype=F64)
    solved = run(CIRCLE, a, torch.zeros_like(a))
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z.abs() - (1 - a * a).sqrt()).abs().max() < 1e-14


def test_a_saddle_of_the_squares_is_left() -> None:
    problem = RootProblem(residual=lambda z, a: torch.stack((z[:, 0] - a[:, 0], z[:, 1].square() - 1), 1), ranks=(1,))
    a = torch.tensor([[3.0]], dtype=F64)
    solved = run(problem, a, torch.zeros(1, 2, dtype=F64))
    assert outcomes(solved) == [Outcome.CONVERGED]
    assert (solved.z.abs() - torch.tensor([[3.0, 1.0]], dtype=F64)).abs().max() < 1e-13


def test_double_roots_and_lines_of_roots_are_singular() -> None:
    a = torch.tensor([[0.0], [2.0]], dtype=F64)
    assert outcomes(run(SQUARE_ROOT, a, torch.ones_like(a))) == [Outcome.SINGULAR, Outcome.CONVERGED]
    rows = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=F64)
    line = RootProblem(residual=lambda z, a: z @ rows.T - a * rows[:, 0], ranks=(1,))
    solved = run(line, a, torch.zeros(2, 2, dtype=F64))
    assert outcomes(solved) == [Outcome.SINGULAR] * 2
    assert (solved.z.sum(-1) - a[:, 0]).abs().max() < 1e-11


def test_no_root_is_no_solution() -> None:
    a = torch.full((1, 1), 1.5, dtype=F64)
    for problem in (CIRCLE, SHIFT):
        assert outcomes(run(problem, a, torch.zeros_like(a))) == [Outcome.STALLED]


def test_rows_have_their_own_damping() -> None:
    problem = RootProblem(
        residual=lambda z, a: torch.stack((10 * (z[:, 1] - z[:, 0] ** 2), a[:, 0] - z[:, 0]), 1), ranks=(1,)
    )  # Rosenbrock
    a = torch.tensor([[1.0], [torch.nan], [-2.0], [30.0]], dtype=F64)
    start = torch.tensor([[-1.2, 1.0]], dtype=F64).expand(4, 2)
    solved = run(problem, a, start)
    converged = Outcome.CONVERGED
    assert outcomes(solved) == [converged, Outcome.NOT_FINITE, converged, converged]
    good = torch.tensor([0, 2, 3])
    exact = torch.cat((a, a * a), 1)[good]
    assert ((solved.z[good] - exact).norm(dim=1) < 1e-11 * exact.norm(dim=1)).all()
    alone = run(problem, a[2:3], start[2:3])
    assert torch.equal(alone.iterations, solved.iterations[2:3])


def test_diagonal_equations_need_no_matrix() -> None:
    problem = RootProblem(residual=lambda z, a: z**3 - a, jacobian=lambda z, a: 3 * z * z, diagonal=True, ranks=(1,))
    a = inputs(3, 5000).abs() + 0.1
    solved = run(problem, a, torch.ones_like(a))
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert (solved.z - a ** (1 / 3)).abs().max() < 1e-11
