"""Chord, Newton-Krylov and Peaceman-Rachford: known answers, and what each promises beyond them."""

from __future__ import annotations

import pytest
import torch
from root_problems import AFFINE, CIRCLE, COSINE, OPAQUE_TANH, TANH, contraction, inputs, matvec, unrolled_tanh
from torch import Tensor

from implicitdsl.backward.implicit import implicit_solve
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.chord import Chord
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.newton_krylov import NewtonKrylov
from implicitdsl.solvers.peaceman_rachford import PeacemanRachford
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem
from implicitdsl.solvers.verdict import Solved

F64 = torch.float64
BOTH = [Chord(), NewtonKrylov()]


def name(x: object) -> str:
    return type(x).__name__


def run(solver: Solver, problem: RootProblem, *a: Tensor) -> Solved:
    return solver.solve(problem, torch.zeros_like(a[0]), a)


def outcomes(solved: Solved) -> list[Outcome]:
    return [Outcome(s) for s in solved.status.tolist()]


@pytest.mark.parametrize("solver", BOTH, ids=name)
@pytest.mark.parametrize("problem", [TANH, OPAQUE_TANH], ids=["closed", "opaque"])
@pytest.mark.parametrize("rate", [0.9, 3.0])
def test_tanh_system(solver: Solver, problem: RootProblem, rate: float) -> None:
    x, w = inputs(7, 12), contraction(12, rate)
    solved = run(solver, problem, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED] * 7
    assert (solved.z - torch.tanh(matvec(w, solved.z) + x)).abs().max() < 1e-11
    if rate < 1:
        assert (solved.z - unrolled_tanh(x, w)).abs().max() < 1e-11


@pytest.mark.parametrize("solver", BOTH, ids=name)
def test_affine_of_large_radius(solver: Solver) -> None:
    x, w = inputs(4, 10), contraction(10, 20.0)
    solved = run(solver, AFFINE, x, w)
    exact = torch.linalg.solve(torch.eye(10, dtype=F64) - w, x.T).T
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z - exact).norm() < 1e-9 * exact.norm()


@pytest.mark.parametrize("solver", BOTH, ids=name)
def test_repelling_fixed_point(solver: Solver) -> None:
    a = torch.full((1, 1), 2.5, dtype=F64)
    solved = run(solver, COSINE, a)
    assert outcomes(solved) == [Outcome.CONVERGED]
    assert solved.z.item() == pytest.approx(torch.cos(2.5 * solved.z).item(), abs=1e-12)


def test_chord_leaves_a_singular_start() -> None:
    a = torch.tensor([[0.6], [0.8], [0.0]], dtype=F64)
    solved = run(Chord(), CIRCLE, a)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert (solved.z.abs() - (1 - a * a).sqrt()).abs().max() < 1e-11


@pytest.mark.parametrize("solver", BOTH, ids=name)
def test_no_root_is_reported(solver: Solver) -> None:
    solved = run(solver, CIRCLE, torch.full((1, 1), 1.5, dtype=F64))
    assert not solved.converged.item()
    assert solved.iterations.item() < 1000


@pytest.mark.parametrize("solver", BOTH, ids=name)
def test_a_nan_row_leaves_alone(solver: Solver) -> None:
    x, w = inputs(5, 6), contraction(6, 0.8)
    clean = run(solver, TANH, x, w)
    x = x.clone()
    x[3, 2] = torch.nan
    solved = run(solver, TANH, x, w)
    others = torch.tensor([0, 1, 2, 4])
    assert outcomes(solved)[3] is Outcome.NOT_FINITE
    assert torch.equal(solved.iterations[others], clean.iterations[others])
    assert (solved.z[others] - clean.z[others]).abs().max() < 1e-13


def test_chord_factors_less_often_than_it_steps() -> None:
    calls: list[int] = []

    def jacobian(z: Tensor, x: Tensor, w: Tensor) -> Tensor:
        calls.append(z.shape[0])
        assert TANH.jacobian is not None
        return TANH.jacobian(z, x, w)

    problem = RootProblem(step=TANH.step, jacobian=jacobian, ranks=(1, 2))
    solved = run(Chord(), problem, inputs(5, 8), contraction(8, 0.7))
    assert outcomes(solved) == [Outcome.CONVERGED] * 5
    assert sum(calls) < 0.5 * int(solved.iterations.sum())


def test_newton_krylov_forms_no_matrix_and_few_products() -> None:
    def no_matrix(*_: Tensor) -> Tensor:
        raise AssertionError("a Jacobian was formed")

    problem = RootProblem(step=TANH.step, jvp=TANH.jvp, jacobian=no_matrix, ranks=(1, 2))
    x, w = inputs(3, 300), contraction(300, 0.95)
    solved = run(NewtonKrylov(), problem, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert solved.iterations.max() < 60


def monotone(n: int, margin: float, seed: int = 0) -> Tensor:
    """W with I - W ⪰ margin·I and a large skew part."""
    a, b = contraction(n, 1.5, seed), contraction(n, 4.0, seed + 1)
    return (1 - margin) * torch.eye(n, dtype=F64) - a.T @ a + b - b.T


RELU = RootProblem(
    step=lambda z, x, w: torch.relu(matvec(w, z) + x),
    proximal=lambda x, w: (w, x),
    activation=lambda u, alpha: torch.relu(u),
    ranks=(1, 2),
)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("per_row", [False, True])
def test_peaceman_rachford_where_picard_diverges(alpha: float, per_row: bool) -> None:
    x, w = inputs(6, 10), monotone(10, 0.5)
    a = (x, w.expand(6, 10, 10).contiguous() if per_row else w)
    assert not run(Picard(max_iter=500), RELU, *a).converged.any()
    solved = run(PeacemanRachford(alpha=alpha), RELU, *a)
    assert outcomes(solved) == [Outcome.CONVERGED] * 6
    assert (solved.z - torch.relu(matvec(w, solved.z) + x)).abs().max() < 1e-10
    assert (solved.z == 0).any()


def test_peaceman_rachford_with_another_prox() -> None:
    problem = RootProblem(
        step=TANH.step, proximal=lambda x, w: (w, x), activation=lambda u, alpha: torch.tanh(u), ranks=(1, 2)
    )
    x, w = inputs(4, 8), monotone(8, 0.3)
    solved = run(PeacemanRachford(), problem, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z - torch.tanh(matvec(w, solved.z) + x)).abs().max() < 1e-10


def test_peaceman_rachford_differentiates_like_any_solver() -> None:
    x, w = inputs(3, 5).requires_grad_(), monotone(5, 0.5).requires_grad_()
    z, _ = implicit_solve(RELU, PeacemanRachford(), torch.zeros_like(x), (x, w))
    on = (z > 0).to(F64)
    jacobian = torch.eye(5, dtype=F64) - on.unsqueeze(2) * w.detach()
    u = torch.linalg.solve(jacobian.mT, torch.ones(3, 5, 1, dtype=F64)).squeeze(2) * on
    gx, gw = torch.autograd.grad(z.sum(), (x, w))
    assert (gx - u).abs().max() < 1e-9
    assert (gw - u.mT @ z.detach()).abs().max() < 1e-9


def test_peaceman_rachford_refuses_other_equations() -> None:
    with pytest.raises(ValueError, match="z = σ"):
        run(PeacemanRachford(), COSINE, torch.ones(1, 1, dtype=F64))
