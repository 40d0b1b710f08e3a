"""Smooth convex programs by Newton and interior point, non-convex ones by `nlp`: closed forms, CVXPY, gradients."""

from __future__ import annotations

import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

import implicitdsl as imp

D = torch.float64
TIGHT = {"solver": "CLARABEL", "tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


LOGISTIC = """layer Logistic(n, m):
  given X in R^(m, n), y in R^m
  argmin_{w in R^n} sum(softplus(-y * (X w))) + 0.1 ||w||^2
  return w
"""


def test_logistic_regression() -> None:
    layer = imp.compile(LOGISTIC)
    X, y = normal(3, 20, 5), normal(3, 20, seed=1).sign()
    sol = layer.solve(X, y)
    assert sol.report.converged.all()
    assert sol.report.solver == "nlp"
    w = cp.Variable(5)
    for i in range(3):
        loss = cp.sum(cp.logistic(-cp.multiply(y[i].numpy(), X[i].numpy() @ w))) + 0.1 * cp.sum_squares(w)
        cp.Problem(cp.Minimize(loss)).solve(**TIGHT)
        np.testing.assert_allclose(sol.value[i].numpy(), w.value, atol=2e-5)
    inputs = (X.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(layer, inputs, atol=1e-8)
    assert torch.autograd.gradgradcheck(
        lambda X: layer(X, y.detach()[:1]), (X.detach()[:1].requires_grad_(),), atol=1e-6
    )


def test_entropy_on_the_simplex_is_softmax() -> None:
    layer = imp.compile("argmin_{z in simplex(n)} sum(z * log(z)) - x^T z", n=6)
    x = 3 * normal(4, 6)
    torch.testing.assert_close(layer(x), torch.softmax(x, -1), rtol=1e-9, atol=1e-9)
    J, expected = vmap(jacrev(layer))(x), vmap(jacrev(lambda x: torch.softmax(x, -1)))(x)
    torch.testing.assert_close(J, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(vmap(jacfwd(layer))(x), expected, rtol=1e-8, atol=1e-9)
    one = lambda x: layer(x).square().sum()
    exact = vmap(hessian(lambda x: torch.softmax(x, -1).square().sum()))(x)
    torch.testing.assert_close(vmap(hessian(one))(x), exact, rtol=1e-6, atol=1e-7)


ENTROPY = """layer Entropy(n, m, k):
  given b in R^m, g in R^k
  const A in R^(m, n)
        F in R^(k, n)
  argmax_{x in nonneg^n} -sum(x * log(x)) subject to eq: A x = b, ineq: F x <= g
  return x, dual(eq), dual(ineq)
"""


def test_entropy_maximisation_with_multipliers() -> None:
    A, F, inside = normal(3, 12).abs(), normal(4, 12, seed=1).abs(), normal(2, 12, seed=2).abs() + 0.1
    layer = imp.compile(ENTROPY, A=A, F=F)
    b, g = inside @ A.T, inside @ F.T + torch.tensor([0.0, 0.01, 5.0, 5.0], dtype=D)
    x, eq, ineq = layer(b, g)
    for i in range(2):
        v = cp.Variable(12)
        rows = [A.numpy() @ v == b[i].numpy(), F.numpy() @ v <= g[i].numpy()]
        cp.Problem(cp.Maximize(cp.sum(cp.entr(v))), rows).solve(**TIGHT)
        np.testing.assert_allclose(x[i].numpy(), v.value, atol=2e-4)
        np.testing.assert_allclose(ineq[i].numpy(), rows[1].dual_value, atol=1e-5)
        np.testing.assert_allclose(eq[i].numpy(), rows[0].dual_value, atol=1e-5)
    assert torch.autograd.gradcheck(
        lambda b, g: tuple(layer(b, g)), (b.requires_grad_(), g.requires_grad_()), atol=1e-6
    )


def test_balls_and_norms() -> None:
    """Projection on a ball is x / max(1, ‖x‖ / r); a norm in the objective shrinks."""
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=D, requires_grad=True)
    ball = imp.compile("argmin_{z in ball(n, 2)} ||z - x||^2", n=2)
    torch.testing.assert_close(ball(x), torch.tensor([[1.2, 1.6], [0.3, 0.4]], dtype=D), rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(ball, x, atol=1e-7)
    shrink = imp.compile("argmin_{z in R^n} 1/2 ||z - x||^2 + ||z||", n=2)
    torch.testing.assert_close(shrink(x[0]), x[0] * 0.8, rtol=1e-9, atol=1e-9)


def test_second_order_cone_constraints() -> None:
    text = """layer Socp(n, m):
  given q in R^n, b in R^m, r in positive
  param A in R^(m, n)
  argmin_{z in R^n} q^T z + 0.05 ||z||^2 subject to ||A z + b|| <= r, z[0] <= 0.2
"""
    layer = imp.compile(text, n=4, m=6).double()
    q, b, r = normal(3, 4), 0.5 * normal(3, 6, seed=1), torch.tensor([3.0, 4.0, 5.0], dtype=D)
    z = layer(q, b, r)
    A = layer.A.detach().numpy()
    for i in range(3):
        v = cp.Variable(4)
        rows = [cp.norm(A @ v + b[i].numpy()) <= r[i].item(), v[0] <= 0.2]
        value = cp.Problem(cp.Minimize(q[i].numpy() @ v + 0.05 * cp.sum_squares(v)), rows).solve(solver="CLARABEL")
        mine = z[i].detach().numpy()
        assert np.linalg.norm(A @ mine + b[i].numpy()) <= r[i].item() + 1e-9
        assert q[i].numpy() @ mine + 0.05 * mine @ mine == pytest.approx(value, abs=1e-6)
        np.testing.assert_allclose(mine, v.value, atol=1e-3)
    assert torch.autograd.gradcheck(layer, [t.requires_grad_() for t in (q, b, r)], atol=1e-7)


def test_geometric_powers_and_quotients() -> None:
    """min Σ a / x + x over x > 0: x = √a."""
    layer = imp.compile("layer P(n):\n  given a in positive^n\n  argmin_{x in positive^n} sum(a / x) + sum(x)\n")
    a = normal(3, 4).abs() + 0.1
    torch.testing.assert_close(layer(a), a.sqrt(), rtol=1e-8, atol=1e-8)
    assert torch.autograd.gradcheck(layer, a.requires_grad_(), atol=1e-7)


def test_projection_on_the_sphere() -> None:
    layer = imp.compile("argmin_{z in sphere(n)} ||z - c||^2\nusing nlp()", n=4)
    c = normal(3, 4).requires_grad_()
    torch.testing.assert_close(layer(c), c / c.norm(dim=-1, keepdim=True), rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(layer, c, atol=1e-7)


def test_rosenbrock_in_a_disc() -> None:
    text = """layer Disc:
given a in R
argmin_{z in R^2} (1 - z[0])^2 + 100 (z[1] - z[0]^2)^2 subject to disc: z[0]^2 + z[1]^2 <= a
using nlp(), start [0.1, 0.2]
return z, dual(disc)"""
    layer = imp.compile(text)
    z, dual = layer(torch.tensor([1.5, 3.0], dtype=D))
    torch.testing.assert_close(z[1], torch.ones(2, dtype=D), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(z[0].square().sum(), torch.tensor(1.5, dtype=D))
    assert float(dual[0]) > 0
    assert float(dual[1]) == pytest.approx(0.0, abs=1e-8)
    assert torch.autograd.gradcheck(lambda a: layer(a)[0], torch.tensor([1.5], dtype=D).requires_grad_(), atol=1e-6)


def test_robust_pooling_is_a_declarative_node() -> None:
    """The pseudo-Huber centre of points (Gould et al. 2019): gradient against the implicit function theorem."""
    text = "argmin_{y in R} sum(sqrt(1 + (x - y)^2))\nusing nlp()"
    layer = imp.compile(text)
    x = normal(3, 9).requires_grad_()
    y = layer(x)
    weight = (1 + (x - y.unsqueeze(-1)).square()) ** -1.5
    (g,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(g, (weight / weight.sum(-1, keepdim=True)).detach(), rtol=1e-8, atol=1e-9)


def test_float32_batches_and_pickle() -> None:
    layer = imp.compile("argmin_{z in simplex(n)} sum(z * log(z)) - x^T z", n=5)
    x = normal(2, 3, 5).float()
    z = layer(x)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, torch.softmax(x, -1))
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x[0, 0]), torch.softmax(x[0, 0], -1))


def test_no_solution_is_said() -> None:
    """Disjoint discs for the middle sample; the neighbours are what they are alone."""
    text = "argmin_{z in R^2} ||z||^2 subject to ||z - c|| <= 1, z[0] >= 2"
    layer = imp.compile(text)
    c = torch.tensor([[2.0, 0.5], [0.0, 0.0], [3.0, 0.0]], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 3"):
        sol = layer.solve(c)
    assert sol.report.converged.tolist() == [True, False, True]
    torch.testing.assert_close(sol.value[[0, 2]], layer(c[[0, 2]]), rtol=1e-10, atol=1e-10)
    with pytest.warns(imp.ConvergenceWarning):
        z = layer(c.requires_grad_())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.ConvergenceWarning)
        z[[0, 2]].sum().backward()
    assert c.grad is not None
    assert c.grad[[0, 2]].isfinite().all()


def test_a_start_where_an_equality_has_no_gradient() -> None:
    """‖z‖² = 1 from z = 0, where its linearisation says nothing: the nearest point of the sphere all the same."""
    text = "layer S(n):\n  given y in R^n\n  argmin_{z in R^n} ||z - y||^2 subject to ||z||^2 = 1\n  using nlp()"
    layer = imp.compile(text, n=3)
    y = normal(4, 3).requires_grad_()
    sol = layer.solve(y)
    assert sol.report.converged.all()
    torch.testing.assert_close(sol.value, y / y.norm(dim=-1, keepdim=True), rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(layer, y, atol=1e-7)


@pytest.mark.parametrize("seed", [152, 179, 241, 348, 378])
def test_an_active_set_that_the_barrier_leaves_open_is_decided(seed: int) -> None:
    """Near its kink ‖W z‖₁ ends with s = λ = √μ; the gradient of a wrong guess was 100 times too large."""
    layer = imp.compile(
        "layer L(n):\n  given x in R^n, y in R\n  param W in R^(n, n), b in R^n\n"
        "  where c = sum((diag(b) (0.5 y x))) (sum(b) (W x))\n"
        "  argmin_{z in R^n} ||z - c||^2 + 0.3 ||W z||_1 subject to ||z|| <= 1 + y^2\n",
        n=2,
    ).double()
    torch.manual_seed(seed)
    layer.W, layer.b = torch.randn(2, 2) * 0.4, torch.randn(2)
    x = 0.5 * torch.randn(2, 2, 2, dtype=torch.float64)
    y = 0.3 * torch.rand(() if seed % 2 else (2, 2), dtype=torch.float64)
    solution = layer.solve(x, y)
    assert float(solution.report.residual.max()) < 1e-13
    weight, direction = torch.randn_like(solution.value), torch.randn(2, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer(x, y) * weight).sum(), layer.W)
    ends: list[Tensor] = []
    with torch.no_grad():
        middle = layer.W.clone()
        for step in (1e-5, -1e-5):
            layer.W = middle + step * direction
            ends.append((layer(x, y) * weight).sum())
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-7])
@pytest.mark.parametrize(
    "objective", ["sum(exp((x - a) / c) - x / c)", "sum(exp((x - a) / c) - x / c) + (sum(x) - sum(a))^2 / c^2"]
)
def test_weakly_active_constraints_are_counted(objective: str, unit: float) -> None:
    """The free minimum lies on the edge x[0] = c, beyond it, and within; in any unit."""
    text = f"layer L:\n  given a in R^2, c in positive\n  argmin_{{x in R^2}} {objective} subject to x[0] <= c\n"
    a = torch.tensor([[1.0, 1.0], [2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    layer = imp.compile(text)
    report = layer.solve(unit * a, a.new_tensor(unit)).report
    assert report.converged.all()
    assert "1 sample has weakly active constraints (up to 1)" in report.message
    assert not layer.solve(unit * a[1:], a.new_tensor(unit)).report.message


@pytest.mark.parametrize(
    "program, minimiser",
    [
        ("z[0]^4 - z[0]^2 + z[1]^2", [0.5**0.5, 0.0]),
        ("z[0] * z[1] subject to ||z||^2 = 1", [0.5**0.5, -(0.5**0.5)]),
        ("-||z||^2 subject to sum(z) = 1, -1 <= z <= 2", [2.0, -1.0]),
    ],
)
def test_a_saddle_or_maximum_is_left(program: str, minimiser: list[float]) -> None:
    """The start is stationary, and no minimum: it goes on along the direction of least curvature."""
    layer = imp.compile(f"argmin_{{z in R^2}} {program} using nlp").double()
    sol = layer.solve()
    assert sol.report.converged
    expected = torch.tensor(minimiser, dtype=torch.float64)
    torch.testing.assert_close(sol.value.double().abs().sort()[0], expected.abs().sort()[0], rtol=1e-6, atol=1e-6)
    assert (sol.value.prod() <= 0) == (expected.prod() <= 0)


@pytest.mark.parametrize("radius", [1e-5, 1e-4, 1.0, 10.0])
def test_the_nearest_point_of_a_small_sphere_is_not_the_farthest(radius: float) -> None:
    """z = r x / |x|, and ∂z/∂r = x / |x|."""
    layer = imp.compile("""layer L(n):
      given x in R^n, r in positive
      argmin_{z in R^n} ||z - x||^2 subject to ||z||^2 = r^2 using nlp
    """)
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(10, 3, dtype=torch.float64), dim=-1) * max(1.0, 2 * radius)
    r = torch.tensor(radius, dtype=torch.float64, requires_grad=True)
    z = layer(x, r)
    direction = torch.nn.functional.normalize(x, dim=-1)
    torch.testing.assert_close(z, radius * direction, rtol=1e-8, atol=1e-10 * radius)
    (grad,) = torch.autograd.grad((z * direction).sum(), r)
    torch.testing.assert_close(grad, r.new_tensor(10.0), rtol=1e-7, atol=0.0)


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
def test_a_sample_is_not_solved_in_units_that_another_needs() -> None:
    """Which local minimum a sample reaches does not hang on a mate of size 1e-12 or 1e6."""
    layer = imp.compile("layer L(n):\n  given x in R^n\n  argmin_{z in R^n} sum(cos(3 z)) + ||z - x||^2 using nlp\n")
    torch.manual_seed(0)
    x = torch.randn(20, 2, dtype=torch.float64)
    alone = layer(x)
    for size in (1e-12, 1e6):
        beside = layer(torch.cat([x, size * x[:1]]))
        torch.testing.assert_close(beside[:20], alone, rtol=1e-9, atol=1e-9)
