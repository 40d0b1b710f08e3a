"""Broyden: exact after 2n affine steps, indifferent to scale and sign, guarded when free steps lead nowhere."""

from __future__ import annotations

import pytest
import torch
from root_problems import AFFINE, CIRCLE, SHIFT, TANH, contraction, inputs
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.broyden import Broyden
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.problem import RootProblem

F64 = torch.float64


@pytest.mark.parametrize("scale", [-1e6, -1.0, 1e-6, 1e6])
@pytest.mark.parametrize("radius", [0.5, 1.5, 20.0])
def test_affine_equations_take_2n_steps_whatever_their_scale(scale: float, radius: float) -> None:
    x, w = inputs(4, 10), contraction(10, radius)
    problem = RootProblem(residual=lambda z, x, w: scale * AFFINE.F(z, (x, w)), ranks=(1, 2))
    solved = Broyden().solve(problem, torch.zeros_like(x), (x, w))
    exact = torch.linalg.solve(torch.eye(10, dtype=F64) - w, x.T).T
    assert solved.status.tolist() == [Outcome.CONVERGED] * 4
    assert solved.iterations.max() <= 24
    # ‖F‖ is small beside ‖z‖ where F has a small scale, so the tolerance is reached sooner
    assert (solved.z - exact).norm() < 1e-9 / min(1.0, abs(scale)) * exact.norm()


def test_far_from_a_contraction_it_still_finds_a_root() -> None:
    x, w = inputs(4, 30), contraction(30, 3.0)
    solved = Broyden().solve(TANH, torch.zeros_like(x), (x, w))
    assert solved.status.tolist() == [Outcome.CONVERGED] * 4
    assert TANH.F(solved.z, (x, w)).abs().max() < 1e-11


def rosenbrock(z: Tensor, a: Tensor) -> Tensor:
    return torch.stack((10 * (z[:, 1] - z[:, 0] ** 2), a[:, 0] - z[:, 0]), 1)


def test_a_curved_valley() -> None:
    a = torch.tensor([[1.0], [-2.0], [30.0]], dtype=F64)
    start = torch.tensor([[-1.2, 1.0]], dtype=F64).expand(3, 2)
    solved = Broyden().solve(RootProblem(residual=rosenbrock, ranks=(1,)), start, (a,))
    exact = torch.cat((a, a * a), 1)
    assert solved.status.tolist() == [Outcome.CONVERGED] * 3
    assert ((solved.z - exact).norm(dim=1) < 1e-9 * exact.norm(dim=1)).all()


def test_a_trial_outside_the_domain_is_shortened() -> None:
    problem = RootProblem(residual=lambda z, a: torch.log(z) - a, ranks=(1,))
    a = torch.tensor([[-3.0], [0.5], [4.0]], dtype=F64)
    solved = Broyden().solve(problem, torch.ones_like(a), (a,))
    assert solved.status.tolist() == [Outcome.CONVERGED] * 3
    assert ((solved.z - a.exp()).abs() < 1e-10 * a.exp()).all()


def test_it_stays_in_its_box() -> None:
    a = torch.tensor([[0.6], [-0.8]], dtype=F64)
    problem = RootProblem(residual=CIRCLE.residual, ranks=(1,), lower=0.0)
    solved = Broyden().solve(problem, torch.full_like(a, 0.1), (a,))
    assert solved.status.tolist() == [Outcome.CONVERGED] * 2
    assert (solved.z - (1 - a * a).sqrt()).abs().max() < 1e-11


def test_no_root_ends_as_stalled_near_the_least_residual() -> None:
    a = torch.full((1, 1), 1.5, dtype=F64)
    solved = Broyden().solve(CIRCLE, torch.ones_like(a), (a,))
    assert solved.status.tolist() == [Outcome.STALLED]
    assert solved.residual.item() < 1.3  # the least is 1.25
    assert Broyden().solve(SHIFT, a, (a,)).status.tolist() == [Outcome.STALLED]


def test_it_needs_fewer_evaluations_than_the_unknowns() -> None:
    x, w = inputs(4, 200), contraction(200, 0.95)
    solved = Broyden().solve(TANH, torch.zeros_like(x), (x, w))
    assert solved.nfe.max() < 40
    assert (solved.z - Newton().solve(TANH, torch.zeros_like(x), (x, w)).z).abs().max() < 1e-10
