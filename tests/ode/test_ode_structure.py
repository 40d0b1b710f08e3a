"""What is seen in the equation: linear ones by the matrix exponential, separable ones by symplectic methods."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.solvers.ode.exponential import linear_flow

D = torch.float64
AFFINE = """
given x in R^n
param A in R^(n, n), b in R^n = normal(0, 1)
find z(t) in R^n for t in [0, 2] such that dz/dt = A z + b, z(0) = x
{}
return z(2), z(0.7), dz/dt(2)
"""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_affine_equations_are_solved_by_the_exponential() -> None:
    layer = imp.compile(AFFINE.format(""), n=3).double()
    x = numbers(4, 3).requires_grad_()
    solution = layer.solve(x)
    assert solution.report.solver == "expm"
    assert bool(solution.report.converged.all())
    other = imp.compile(AFFINE.format("using dopri8(rtol=1e-12, atol=1e-14)"), n=3).double()
    other.load_state_dict(layer.state_dict())
    weights = numbers(4, 3, seed=1)
    found = []
    for m in (layer, other):
        y = m(x)
        assert torch.allclose(y[2], y[0] @ m.A.T + m.b)
        found.append((*y, *torch.autograd.grad((weights * (y[0] + y[1])).sum(), (x, m.A, m.b))))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert "matrix exponential" in imp.explain(layer)


def test_a_system_of_several_unknowns_and_a_higher_order_is_linear_too() -> None:
    layer = imp.compile("""
    given q0 in R^n, v0 in R^n, k in R
    find q(t) in R^n for t in [0, 3] such that d²q/dt² = -k q - 0.2 dq/dt, q(0) = q0, dq/dt(0) = v0
    return q(3)
    """)
    q0, v0, k = numbers(5, 2), numbers(5, 2, seed=1), torch.linspace(1, 4, 5, dtype=D)
    assert layer.solve(q0, v0, k).report.solver == "expm"
    w = (k - 0.01).sqrt().unsqueeze(1)
    s, c = torch.sin(3 * w), torch.cos(3 * w)
    exact = math.exp(-0.3) * (q0 * c + (v0 + 0.1 * q0) / w * s)
    assert torch.allclose(layer(q0, v0, k), exact, rtol=1e-11)


def test_per_sample_times() -> None:
    text = "find z(t) in R^n for t in [0, T] such that dz/dt = A z, z(0) = x\nreturn z(T)"
    layer = imp.compile(f"given x in R^n, T in R\nparam A in R^(n, n)\n{text}", n=2).double()
    x, T = numbers(3, 2), torch.tensor([0.5, -1.0, 0.0], dtype=D, requires_grad=True)
    found = layer(x, T)
    for i in range(3):
        assert torch.allclose(found[i], torch.linalg.matrix_exp(layer.A * T[i]) @ x[i])
    (g,) = torch.autograd.grad(found.sum(), T)
    assert torch.allclose(g, (found @ layer.A.T).sum(1), rtol=1e-10)


def test_stiffness_does_not_matter() -> None:
    layer = imp.compile("given x in R^n\nparam A in R^(n, n)\n"
                        "find z(t) in R^n for t in [0, 1] such that dz/dt = A z, z(0) = x", n=2).double()  # fmt: skip
    with torch.no_grad():
        layer.A.copy_(torch.tensor([[-1e6, 1e6], [0.0, -1.0]], dtype=D))
    y = layer(torch.tensor([[5.0, 1.0]], dtype=D))
    assert torch.allclose(y[0, 1], torch.exp(-torch.ones((), dtype=D)), rtol=1e-10)
    assert torch.allclose(y[0, 0], y[0, 1] / (1 - 1e-6), rtol=1e-6)


def test_stiffness_does_not_matter_in_float32() -> None:
    """The heat equation: in float32 twelve squarings leave three digits."""
    N = 60
    L = (torch.diag(torch.full((N,), -2.0)) + torch.ones(N - 1).diag(1) + torch.ones(N - 1).diag(-1)) * (N + 1) ** 2
    layer = imp.compile("given x in R^n\nparam A in R^(n, n)\n"
                        "find z(t) in R^n for t in [0, 0.2] such that dz/dt = A z, z(0) = x", n=N)  # fmt: skip
    with torch.no_grad():
        layer.A.copy_(L)
    values, vectors = torch.linalg.eigh(L.double())
    x = torch.sin(torch.pi * torch.linspace(0, 1, N + 2)[1:-1])
    exact = vectors @ (torch.exp(0.2 * values) * (vectors.T @ x.double()))
    assert float((layer(x).detach() - exact).norm() / exact.norm()) < 3e-7


@pytest.mark.parametrize("shared", [True, False])
def test_linear_flow_shapes(shared: bool) -> None:
    A, h, y0, tau = numbers(3, 3), numbers(3, seed=1), numbers(4, 3, seed=2), torch.tensor([0.0, 0.5], dtype=D)
    if not shared:
        A, tau = A.expand(4, 3, 3), tau.expand(4, 2)
    y = linear_flow(A, h, y0, tau)
    assert y.shape == (4, 2, 3)
    assert torch.allclose(y[:, 0], y0)


PENDULUM = """
given q0 in R, p0 in R
where H(q, p) = 1/2 p^2 - cos(q)
find q(t) in R, p(t) in R for t in [0, {}] such that
  dq/dt = grad(H(q, p), p), dp/dt = -grad(H(q, p), q), q(0) = q0, p(0) = p0
using {}
return q({}), p({}), H(q({}), p({})), H(q0, p0), q(1)
"""


def pendulum(end: float, using: str) -> torch.nn.Module:
    return imp.compile(PENDULUM.format(end, using, end, end, end, end))


@pytest.mark.parametrize("method,order", [("leapfrog", 2), ("yoshida4", 4)])
def test_symplectic_methods_have_their_order(method: str, order: int) -> None:
    q, p = torch.tensor([1.0, 0.2], dtype=D), torch.tensor([0.5, -1.0], dtype=D)
    exact = pendulum(4, "dopri8(rtol=1e-13, atol=1e-15)")(q, p)
    errors = [float((pendulum(4, f"{method}(steps={n})")(q, p)[0] - exact[0]).abs().max()) for n in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    # outputs inside the interval are where a step ends
    assert torch.allclose(pendulum(4, f"{method}(steps=320)")(q, p)[4], exact[4], atol=2e-4)


def test_energy_does_not_drift() -> None:
    """Over 500 time units the energy error of leapfrog stays what it is after 5; that of rk4 grows."""
    q, p = torch.tensor([1.0], dtype=D), torch.tensor([0.5], dtype=D)
    drift = {}
    for method in ("leapfrog", "rk4"):
        for end in (5, 500):
            _, _, energy, start, _ = pendulum(end, f"{method}(dt=0.2)")(q, p)
            drift[method, end] = abs(float(energy - start))
    assert drift["leapfrog", 500] < 5e-3
    assert drift["rk4", 500] > 20 * drift["rk4", 5]


def test_symplectic_gradients() -> None:
    layer = pendulum(2, "yoshida4(steps=8)")
    q, p = (torch.tensor([v], dtype=D, requires_grad=True) for v in (1.0, 0.5))
    assert torch.autograd.gradcheck(layer, (q, p))


def test_what_is_not_separable_says_so() -> None:
    text = (
        "given x in R\nfind q(t) in R, p(t) in R for t in [0, 1] such that "
        "dq/dt = p, dp/dt = -q - p, q(0) = x, p(0) = 0"
    )
    with pytest.raises(imp.SpecError, match="rate of p contains it"):
        imp.compile(text + "\nusing leapfrog(steps=10)")
    with pytest.raises(imp.SpecError, match="not affine"):
        imp.compile("given x in R^2\nfind z(t) in R^2 for t in [0, 1] such that dz/dt = tanh(z), z(0) = x\nusing expm")
