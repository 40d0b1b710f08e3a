"""Stiff equations: implicit methods, detection, the standard problems, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import implicitdsl as imp
from implicitdsl.backward.ode_solve import Checkpointed, OdeSolve, UnrolledSteps, ode_solve
from implicitdsl.ground.errors import ConvergenceWarning
from implicitdsl.solvers.ode.control import Control
from implicitdsl.solvers.ode.dirk import IMPLICIT_EULER, KVAERNO5, TRAPEZOID, Dirk
from implicitdsl.solvers.ode.method import Method
from implicitdsl.solvers.ode.problem import OdeProblem
from implicitdsl.solvers.ode.rosenbrock import Rodas5P

D = torch.float64
METHODS: dict[str, Method] = {
    "implicit_euler": Dirk(IMPLICIT_EULER),
    "trapezoid": Dirk(TRAPEZOID),
    "kvaerno5": Dirk(KVAERNO5),
    "rodas5p": Rodas5P(),
}


def logistic(t: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return r * y * (1 - y) * torch.cos(t).unsqueeze(1)


def logistic_at(t: Tensor, y0: Tensor, r: Tensor) -> Tensor:
    return 1 / (1 + (1 / y0 - 1) * torch.exp(-r * torch.sin(t)))


@pytest.mark.parametrize("name", list(METHODS))
def test_nominal_order_on_a_non_autonomous_problem(name: str) -> None:
    method = METHODS[name]
    y0, r = torch.full((2, 1), 0.5, dtype=D), torch.tensor(1.5, dtype=D)
    times = torch.tensor([[0.3, 1.1, 2.0], [0.0, 0.9, 1.7]], dtype=D)
    start, exact = logistic_at(times[:, :1], y0, r), logistic_at(times[:, 1:], y0, r)
    errors = []
    for k in (20, 40):
        spec = OdeSolve(OdeProblem(logistic, (0,)), (method,), Control(steps=k))
        y, ended = ode_solve(spec, start, times[:, 0], times[:, 1:], (r,))
        assert bool(ended.converged.all())
        errors.append(float((y[..., 0] - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) > method.order - 0.3, errors


@pytest.mark.parametrize("name", list(METHODS))
def test_gradient_is_that_of_the_steps(name: str) -> None:
    """The discrete adjoint, autograd through the steps, and differences with equal steps agree."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(3, 3, dtype=D, generator=g).requires_grad_()
    c = torch.randn(4, 3, dtype=D, generator=g).requires_grad_()
    y0 = torch.randn(4, 3, dtype=D, generator=g).requires_grad_()
    times = torch.tensor([[0.0, 0.7, 2.0]], dtype=D).expand(4, 3)

    def rate(t: Tensor, y: Tensor, W: Tensor, c: Tensor) -> Tensor:
        return (
            torch.tanh(y @ W.mT if W.dim() == 2 else (W @ y.unsqueeze(-1)).squeeze(-1)) * torch.cos(3 * t).unsqueeze(1)
            - 5 * y
            + c
        )

    problem = OdeProblem(rate, (2, 1))

    def run(backward: Checkpointed | UnrolledSteps) -> Callable[..., Tensor]:
        spec = OdeSolve(problem, (METHODS[name],), Control(steps=6), backward)
        return lambda y0, W, c: ode_solve(spec, y0, times[:, 0], times[:, 1:], (W, c))[0]

    found = []
    for backward in (Checkpointed(), Checkpointed(2), UnrolledSteps()):
        y = run(backward)(y0, W, c)
        found.append((y, *torch.autograd.grad(y.square().sum(), (y0, W, c))))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-11)
    assert torch.autograd.gradcheck(run(Checkpointed()), (y0, W, c), fast_mode=True)


@pytest.mark.parametrize("name", ["kvaerno5", "rodas5p", "implicit_euler"])
def test_transforms(name: str) -> None:
    layer = imp.compile(f"given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = -z * z * z, z(0) = x\n"
                        f"using {name}(steps=12)")  # fmt: skip
    x = torch.tensor([0.5, 1.5], dtype=D)
    slope = torch.autograd.functional.jacobian(layer, x)
    assert torch.allclose(torch.func.jacrev(layer)(x), slope, atol=1e-10)
    assert torch.allclose(torch.func.jacfwd(layer)(x), slope, atol=1e-10)
    xs = torch.stack([x, 2 * x, -x])
    assert torch.allclose(torch.func.vmap(layer)(xs), layer(xs), atol=1e-10)
    assert torch.autograd.gradgradcheck(layer, (x.clone().requires_grad_(),), fast_mode=True)


# -- the standard problems (Mazzia & Magherini, Test Set for IVP Solvers 2.4; Hairer & Wanner II, §IV.10) --

HIRES = (
    "find y1(t) in R, y2(t) in R, y3(t) in R, y4(t) in R, y5(t) in R, y6(t) in R, y7(t) in R, y8(t) in R "
    "for t in [0, T] such that dy1/dt = -1.71 y1 + 0.43 y2 + 8.32 y3 + 0.0007, dy2/dt = 1.71 y1 - 8.75 y2, "
    "dy3/dt = -10.03 y3 + 0.43 y4 + 0.035 y5, dy4/dt = 8.32 y2 + 1.71 y3 - 1.12 y4, "
    "dy5/dt = -1.745 y5 + 0.43 y6 + 0.43 y7, dy6/dt = -280 y6 y8 + 0.69 y4 + 1.71 y5 - 0.43 y6 + 0.69 y7, "
    "dy7/dt = 280 y6 y8 - 1.81 y7, dy8/dt = -280 y6 y8 + 1.81 y7, y1(0) = 1, y2(0) = 0, y3(0) = 0, y4(0) = 0, "
    "y5(0) = 0, y6(0) = 0, y7(0) = 0, y8(0) = 0.0057"
)
VDPOL = (
    "find x(t) in R, v(t) in R for t in [0, T] such that dx/dt = v, dv/dt = 1e6 ((1 - x^2) v - x), x(0) = 2, v(0) = 0"
)
ROBER = (
    "find a(t) in R, b(t) in R, c(t) in R for t in [0, T] such that da/dt = -0.04 a + 1e4 b c, "
    "db/dt = 0.04 a - 1e4 b c - 3e7 b^2, dc/dt = 3e7 b^2, a(0) = 1, b(0) = 0, c(0) = 0"
)
OREGO = (
    "find a(t) in R, b(t) in R, c(t) in R for t in [0, T] such that da/dt = 77.27 (b + a (1 - 8.375e-6 a - b)), "
    "db/dt = (c - (1 + a) b) / 77.27, dc/dt = 0.161 (a - c), a(0) = 1, b(0) = 2, c(0) = 3"
)


def hires(t: float, y: np.ndarray) -> list[float]:
    a, b, c, d, e, f, g, h = y
    return [
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -280 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        280 * f * h - 1.81 * g,
        -280 * f * h + 1.81 * g,
    ]


def vdpol(t: float, y: np.ndarray) -> list[float]:
    return [y[1], 1e6 * ((1 - y[0] ** 2) * y[1] - y[0])]


def rober(t: float, y: np.ndarray) -> list[float]:
    a, b, c = y
    return [-0.04 * a + 1e4 * b * c, 0.04 * a - 1e4 * b * c - 3e7 * b * b, 3e7 * b * b]


def orego(t: float, y: np.ndarray) -> list[float]:
    a, b, c = y
    return [77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)]


PROBLEMS = {
    "hires": (HIRES, hires, [1, 0, 0, 0, 0, 0, 0, 0.0057], 321.8122, {0: 0.7371312573325668e-3}),
    "vdpol": (VDPOL, vdpol, [2, 0], 2.0, {0: 1.706167732170483, 1: -0.8928097010247975}),
    "rober": (ROBER, rober, [1, 0, 0], 1e11, {0: 0.2083340149701255e-7}),
    "orego": (OREGO, orego, [1, 2, 3], 360.0, {0: 1.000814870318523}),
}


@pytest.mark.slow
@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("method", ["rodas5p", "kvaerno5"])
def test_standard_problems_to_six_digits(problem: str, method: str) -> None:
    """At tight tolerance; the numbers that are quoted are confirmed by SciPy's Radau here."""
    text, f, y0, end, quoted = PROBLEMS[problem]
    layer = imp.compile(f"given T in R\n{text}\nusing {method}(rtol=1e-9, atol=1e-15, controller=pid)")
    expected = solve_ivp(f, (0, end), y0, method="Radau", rtol=1e-11, atol=1e-18).y[:, -1]
    for k, value in quoted.items():
        assert expected[k] == pytest.approx(value, rel=1e-6)
    found = torch.stack(list(layer(torch.tensor([end], dtype=D))), 1)[0]
    assert torch.allclose(found, torch.from_numpy(expected), rtol=1e-6, atol=1e-18)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_standard_problems_with_nothing_said(problem: str) -> None:
    """Stiffness is found out, and the quoted numbers are right to four digits by default tolerances."""
    text, _, _, end, quoted = PROBLEMS[problem]
    solution = imp.compile(f"given T in R\n{text}").solve(torch.tensor([end], dtype=D))
    assert bool(solution.report.converged.all())
    assert "rodas5p" in solution.report.solver
    for k, value in quoted.items():
        assert float(solution.value[k]) == pytest.approx(value, rel=1e-4)


def test_stiffness_is_detected_row_by_row() -> None:
    layer = imp.compile("given mu in R\nfind x(t) in R, v(t) in R for t in [0, 2] such that dx/dt = v, "
                        "dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0")  # fmt: skip
    mu = torch.tensor([1.0, 1000.0, 5.0], dtype=D, requires_grad=True)
    solution = layer.solve(mu)
    assert solution.report.solver == "dopri5, rodas5p"
    assert "1 samples proved stiff" in solution.report.message
    assert int(solution.report.iterations.max()) < 200
    mild = layer.solve(mu[[0, 2]])
    assert mild.report.solver == "dopri5"
    assert torch.allclose(mild.value[0], solution.value[0][[0, 2]], rtol=1e-12)
    (g,) = torch.autograd.grad(solution.value[0].sum(), mu)
    tight = imp.compile("given mu in R\nfind x(t) in R, v(t) in R for t in [0, 2] such that dx/dt = v, "
                        "dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0\nusing rodas5p(rtol=1e-10)")  # fmt: skip
    with torch.no_grad():
        step = 1e-4 * mu
        difference = (tight(mu + step)[0] - tight(mu - step)[0]) / (2 * step)
    assert torch.allclose(g, difference, rtol=1e-3)


def test_explicit_methods_asked_for_are_not_replaced() -> None:
    layer = imp.compile("given mu in R\nfind x(t) in R, v(t) in R for t in [0, 2] such that dx/dt = v, "
                        "dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0\nusing dopri5(max_steps=300)")  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        assert layer.solve(torch.tensor([1e4], dtype=D)).report.solver == "dopri5"


def test_implicit_euler_damps_what_explicit_cannot() -> None:
    text = "given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = -1e6 (z - cos(t)), z(0) = x\nusing {}"
    x = torch.tensor([2.0], dtype=D)
    found = imp.compile(text.format("implicit_euler(steps=10)"))(x)
    assert torch.allclose(found, torch.cos(torch.ones(1, dtype=D)), atol=1e-5)


def test_float32_steps_near_stability_keep_gradients_right() -> None:
    """On the slow manifold the stages that show ρ differ by rounding in float32: a low estimate of it let |h| ρ reach
    16, which the states survive and the discrete adjoint multiplies by 50."""
    text = """layer Oscillators():
  given mu in R
  find x(t) in R, v(t) in R for t in [0, 5] such that dx/dt = v, dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0
  using dopri5(rtol=1e-5, atol=1e-6)
"""
    layer = imp.compile(text)

    def slopes(kind: torch.dtype) -> torch.Tensor:
        mu = torch.logspace(1.4, 2, 14, dtype=torch.float64).to(kind).requires_grad_()
        x, v = layer(mu)
        return torch.autograd.grad((x + v).sum(), mu)[0].double()

    torch.testing.assert_close(slopes(torch.float32), slopes(torch.float64), rtol=1e-4, atol=1e-7)
