"""Integrators by themselves: nominal order, tolerances, independence of rows, verdicts, gradients."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.ode_solve import Checkpointed, OdeSolve, UnrolledSteps, ode_solve
from implicitdsl.ground.errors import ConvergenceError, ConvergenceWarning
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.ode.control import Control
from implicitdsl.solvers.ode.explicit import Explicit
from implicitdsl.solvers.ode.problem import OdeProblem
from implicitdsl.solvers.ode.tableaux import TABLEAUX

D = torch.float64
ADAPTIVE = [name for name, t in TABLEAUX.items() if t.control]


def logistic(t: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """y' = r y (1 − y) cos t: y = 1 / (1 + (1/y0 − 1) exp(−r sin t)); non-autonomous and nonlinear."""
    return r * y * (1 - y) * torch.cos(t).unsqueeze(1)


def logistic_at(t: Tensor, y0: Tensor, r: Tensor) -> Tensor:
    return 1 / (1 + (1 / y0 - 1) * torch.exp(-r * torch.sin(t)))


def solve(problem: OdeProblem, y0: Tensor, times: Tensor, a: tuple[Tensor, ...], name: str, **options: object):
    backward = options.pop("backward", Checkpointed())
    failures = options.pop("failures", Failures())
    spec = OdeSolve(problem, (Explicit(TABLEAUX[name]),), Control(**options), backward, failures)
    return ode_solve(spec, y0, times[:, 0], times[:, 1:], a)


@pytest.mark.parametrize("name", list(TABLEAUX))
def test_nominal_order_on_a_non_autonomous_problem(name: str) -> None:
    problem = OdeProblem(logistic, (0,))
    y0, r = torch.full((2, 1), 0.5, dtype=D), torch.tensor(1.5, dtype=D)
    times = torch.tensor([[0.3, 2.0], [0.0, 1.7]], dtype=D)
    start = logistic_at(times[:, :1], y0, r)
    exact = logistic_at(times[:, 1:], y0, r)
    steps = 4 if name == "dopri8" else 16
    errors = []
    for k in (steps, 2 * steps):
        y, ended = solve(problem, start, times, (r,), name, steps=k)
        assert bool(ended.converged.all())
        errors.append(float((y[:, 0] - exact).abs().max()))
    order = math.log2(errors[0] / errors[1])
    assert order > TABLEAUX[name].order - 0.35, (errors, order)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-10])
def test_error_follows_the_tolerance(name: str, rtol: float) -> None:
    problem = OdeProblem(logistic, (0,))
    y0 = torch.linspace(0.05, 0.95, 7, dtype=D).unsqueeze(1)
    r, times = torch.tensor(2.0, dtype=D), torch.tensor([[0.0, 1.0, 5.0, 3.3]], dtype=D).expand(7, 4)
    y, ended = solve(problem, y0, times, (r,), name, rtol=rtol, atol=rtol)
    exact = logistic_at(times[:, 1:], y0, r)
    assert bool(ended.converged.all())
    error = float((y[..., 0] - exact).abs().max())
    assert error < 200 * rtol  # SciPy: 43 (DOP853), 98 (RK23)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("controller", ["i", "pi", "pid"])
def test_controllers(name: str, controller: str) -> None:
    problem = OdeProblem(logistic, (0,))
    y0, r = torch.tensor([[0.3]], dtype=D), torch.tensor(2.0, dtype=D)
    times = torch.tensor([[0.0, 8.0]], dtype=D)
    y, _ = solve(problem, y0, times, (r,), name, rtol=1e-6, atol=1e-8, controller=controller)
    assert torch.allclose(y[..., 0], logistic_at(times[:, 1:], y0, r), atol=1e-5)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    """Steps, evaluations and states of a row are those it has alone, beside a row that needs 100 times as many."""
    mu = torch.tensor([0.1, 1.0, 30.0, 0.5], dtype=D)

    def vdp(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        x, v = y.unbind(1)
        return torch.stack([v, mu * (1 - x * x) * v - x], 1)

    problem = OdeProblem(vdp, (0,))
    y0 = torch.tensor([[2.0, 0.0]], dtype=D).expand(4, 2)
    times = torch.tensor([[0.0, 1.0, 4.0]], dtype=D).expand(4, 3)
    y, ended = solve(problem, y0, times, (mu,), name)
    for i in range(4):
        alone, own = solve(problem, y0[i : i + 1], times[i : i + 1], (mu[i : i + 1],), name)
        assert int(own.steps) == int(ended.steps[i])
        assert int(own.nfe) == int(ended.nfe[i])
        assert torch.allclose(alone[0], y[i], atol=1e-12)
    assert int(ended.steps[2]) > int(ended.steps[0])


def test_large_batches_are_compacted() -> None:
    """Evaluations are spent on rows under way only."""
    rows: list[int] = []

    def rate(t: Tensor, y: Tensor, k: Tensor) -> Tensor:
        rows.append(len(y))
        return -k.unsqueeze(1) * y * torch.sin(k * t).unsqueeze(1)

    k = torch.logspace(-1, 2, 64, dtype=D)
    y0 = torch.ones(64, 1, dtype=D)
    times = torch.tensor([[0.0, 5.0]], dtype=D).expand(64, 2)
    _, ended = solve(OdeProblem(rate, (0,)), y0, times, (k,), "dopri5")
    assert bool(ended.converged.all())
    assert sum(rows) < 1.6 * int(ended.nfe.sum())


@pytest.mark.parametrize("name", list(TABLEAUX))
@pytest.mark.parametrize("budget", [None, 1, 3])
def test_discrete_adjoint_is_the_gradient_of_the_steps(name: str, budget: int | None) -> None:
    """Against autograd through every step, with outputs inside steps, shared and batched inputs, unequal steps."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(3, 3, dtype=D, generator=g).requires_grad_()
    c = torch.randn(6, 3, dtype=D, generator=g).requires_grad_()
    y0 = torch.randn(6, 3, dtype=D, generator=g).requires_grad_()
    t0 = torch.rand(6, 1, dtype=D, generator=g)
    times = torch.cat([t0, t0, t0 + 0.4, t0 + 1.3, t0 + 3.0], 1)

    def rate(t: Tensor, y: Tensor, W: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(y @ W.T) * torch.cos(3 * t).unsqueeze(1) + c * c

    problem = OdeProblem(rate, (2, 1))
    options = {"rtol": 1e-5, "atol": 1e-7} if TABLEAUX[name].control else {"steps": 9}
    found = []
    for backward in (Checkpointed(budget), UnrolledSteps()):
        y, _ = solve(problem, y0, times, (W, c), name, backward=backward, **options)
        weights = torch.linspace(1, 2, y.numel(), dtype=D).view_as(y)
        found.append((y, *torch.autograd.grad((weights * y).sum(), (y0, W, c))))
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)


def test_blow_up_is_reported_with_its_time() -> None:
    """y' = y², y(0) = y0 ends at t = 1/y0."""
    problem = OdeProblem(lambda t, y: y * y)
    y0 = torch.tensor([[0.1], [1.0], [0.2], [math.nan]], dtype=D)
    times = torch.tensor([[0.0, 2.0]], dtype=D).expand(4, 2)
    with pytest.warns(ConvergenceWarning, match=r"2 of 4 samples .* sample 1 stopped at t = 1"):
        y, ended = solve(problem, y0, times, (), "dopri5")
    assert ended.status.tolist() == [0, Outcome.DIVERGED, 0, Outcome.NOT_FINITE]
    assert torch.allclose(ended.time[:3], torch.tensor([2.0, 1.0, 2.0], dtype=D), atol=1e-6)
    assert torch.allclose(y[[0, 2], 0], y0[[0, 2]] / (1 - 2 * y0[[0, 2]]), rtol=1e-5)
    with pytest.raises(ConvergenceError):
        solve(problem, y0, times, (), "dopri5", failures=Failures("raise"))
    with pytest.warns(ConvergenceWarning):
        y, _ = solve(problem, y0, times, (), "dopri5", failures=Failures("nan"))
    assert y[:, 0, 0].isnan().tolist() == [False, True, False, True]


def test_limits_are_reported() -> None:
    problem = OdeProblem(lambda t, y: torch.cos(50 * t).unsqueeze(1) * torch.ones_like(y))
    y0, times = torch.zeros(2, 1, dtype=D), torch.tensor([[0.0, 4.0], [0.0, 0.01]], dtype=D)
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        _, ended = solve(problem, y0, times, (), "dopri5", max_steps=10)
    assert ended.status.tolist() == [Outcome.MAX_STEPS, 0]
    wall = OdeProblem(lambda t, y: torch.where(t < 0.5, 1.0, math.nan).unsqueeze(1).to(y) * torch.ones_like(y))
    with pytest.warns(ConvergenceWarning, match="too small"):
        _, ended = solve(wall, y0[:1], times[:1], (), "dopri5")
    assert ended.status.tolist() == [Outcome.STEP_UNDERFLOW]
    assert float(ended.time[0]) == pytest.approx(0.5, abs=1e-6)
    with pytest.warns(ConvergenceWarning, match="too small"):
        _, ended = solve(problem, y0, times, (), "dopri5", min_step=0.5)
    assert ended.status.tolist() == [Outcome.STEP_UNDERFLOW, 0]


def test_gradients_of_good_rows_beside_failed_ones() -> None:
    a = torch.tensor(1.0, dtype=D, requires_grad=True)
    problem = OdeProblem(lambda t, y, a: a * torch.log(y), (0,))
    times = torch.tensor([[0.0, 1.0]], dtype=D).expand(2, 2)
    good, bad = torch.tensor([[2.0]], dtype=D), torch.tensor([[2.0], [-1.0]], dtype=D)
    (alone,) = torch.autograd.grad(solve(problem, good, times[:1], (a,), "dopri5")[0].sum(), a)
    with pytest.warns(ConvergenceWarning):
        y, _ = solve(problem, bad, times, (a,), "dopri5")
    (both,) = torch.autograd.grad(y.sum(), a)
    assert torch.allclose(alone, both)


@pytest.mark.parametrize("start", [0.0, 1.0e4, 1.0e6])
def test_float32_near_large_times(start: float) -> None:
    """Steps are parts of the interval in float64, so that a short interval far from zero is as good as at zero."""
    problem = OdeProblem(lambda t, y: -y, autonomous=True)
    y0, times = torch.ones(3, 1), torch.tensor([[start, start + 1.0]]).expand(3, 2)
    y, ended = solve(problem, y0, times, (), "dopri5")
    assert bool(ended.converged.all())
    assert torch.allclose(y, torch.full_like(y, math.exp(-1)), rtol=2e-5)


def test_stability_limits_steps_where_the_adjoint_would_amplify() -> None:
    """On a stiff stretch the gradient of dopri5 stays right, by |h| ρ ≤ 2.8."""
    mu = torch.tensor([60.0], dtype=D, requires_grad=True)

    def vdp(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        x, v = y.unbind(1)
        return torch.stack([v, mu * (1 - x * x) * v - x], 1)

    problem, y0 = OdeProblem(vdp, (0,)), torch.tensor([[2.0, 0.0]], dtype=D)
    times = torch.tensor([[0.0, 5.0]], dtype=D)
    y, _ = solve(problem, y0, times, (mu,), "dopri5", rtol=1e-7, atol=1e-9)
    (found,) = torch.autograd.grad(y[..., 0].sum(), mu)
    with torch.no_grad():
        ends = [
            float(solve(problem, y0, times, (mu + d,), "dopri8", rtol=1e-12, atol=1e-13)[0][..., 0])
            for d in (1e-3, -1e-3)
        ]
    assert float(found) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-4)


def test_empty_batch_and_empty_interval() -> None:
    problem = OdeProblem(lambda t, y: y)
    y, _ = solve(problem, torch.ones(0, 2, dtype=D), torch.zeros(0, 2, dtype=D), (), "dopri5")
    assert y.shape == (0, 1, 2)
    y0 = torch.tensor([[3.0]], dtype=D, requires_grad=True)
    y, ended = solve(problem, y0, torch.tensor([[1.0, 1.0]], dtype=D), (), "dopri5")
    assert float(y.detach()) == 3.0
    assert bool(ended.converged.all())
    assert float(torch.autograd.grad(y.sum(), y0)[0]) == 1.0


def test_times_on_the_wrong_side_are_refused() -> None:
    problem = OdeProblem(lambda t, y: y)
    with pytest.warns(ConvergenceWarning):
        _, ended = solve(problem, torch.ones(1, 1, dtype=D), torch.tensor([[0.0, 1.0, -0.5]], dtype=D), (), "dopri5")
    assert ended.status.tolist() == [Outcome.OUTSIDE]


def test_no_warning_where_all_is_well() -> None:
    problem = OdeProblem(lambda t, y: -y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(problem, torch.ones(2, 1), torch.tensor([[0.0, 1.0]]).expand(2, 2), (), "dopri5")
