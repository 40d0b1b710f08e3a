"""Programs without constraints: samples that end at different iterations, and factors that serve the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import vmap

import implicitdsl as imp
from implicitdsl.ground.errors import ConvergenceWarning
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.lowering.ops import matvec, vecmat
from implicitdsl.solvers.optimum.newton import minimise

D = torch.float64

FIT = """layer Fit(n, m):
  given X in R^(m, n), y in R^m
  argmin_{w in R^n} sum(softplus(-y * (X w))) + 0.1 ||w||^2
"""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [3, 9])
def test_samples_that_end_earlier_are_what_they_are_alone(batch: int) -> None:
    layer = imp.compile(FIT)
    X, y = normal(batch + 1, 20, 4), normal(batch + 1, 20, seed=1).sign()
    X[batch] = 10 * y[batch].unsqueeze(-1) * (2 + X[batch])  # nearly separable, in large units: takes long
    X.requires_grad_()
    sol = layer.solve(X, y)
    assert sol.report.converged.all()
    assert sol.report.iterations.unique().numel() > 1
    (together,) = torch.autograd.grad(sol.value.square().sum(), X)
    for i in range(batch + 1):
        x = X[i].detach().requires_grad_()
        one = layer.solve(x, y[i])
        assert one.report.iterations == sol.report.iterations[i]
        torch.testing.assert_close(sol.value[i], one.value, rtol=1e-12, atol=1e-12)
        (alone,) = torch.autograd.grad(one.value.square().sum(), x)
        torch.testing.assert_close(together[i], alone, rtol=1e-10, atol=1e-12)


def test_the_kept_factor_gives_the_gradient_of_the_implicit_function() -> None:
    layer = imp.compile(FIT)
    X, y, seed = normal(5, 20, 4).requires_grad_(), normal(5, 20, seed=1).sign(), normal(5, 4, seed=2)
    w = layer(X, y)
    (found,) = torch.autograd.grad((w * seed).sum(), X)

    def slope(w: Tensor, X: Tensor, y: Tensor) -> Tensor:
        return 0.2 * w - X.mT @ (y * torch.sigmoid(-y * (X @ w)))

    H = vmap(torch.func.jacrev(slope))(w.detach(), X.detach(), y)
    u = torch.linalg.solve(H, seed)
    pulled = torch.func.vjp(lambda X: vmap(slope)(w.detach(), X, y), X.detach())[1](-u)[0]
    torch.testing.assert_close(found, pulled, rtol=1e-12, atol=1e-13)


def test_a_line_of_minimisers_has_no_derivative() -> None:
    layer = imp.compile("argmin_{w in R^n} (sum(w) - sum(a))^4 + (sum(w) - sum(a))^2 using nlp()", n=2)
    a = torch.tensor([[1.0, 2.0]], dtype=D, requires_grad=True)
    w = layer(a)
    torch.testing.assert_close(w.sum(-1), a.detach().sum(-1))
    with pytest.warns(ConvergenceWarning, match="IMP802"):
        w.sum().backward()


def test_failures_of_some_samples() -> None:
    """f = −z has no minimum, z² has one, and NaN is not a number."""
    p = torch.tensor([[1.0], [0.0], [torch.nan], [0.0]], dtype=D)
    p0 = torch.tensor([[0.5], [2.0], [1.0], [-3.0]], dtype=D)

    def value(z: Tensor, rows: Tensor) -> Tensor:
        s = p[rows]
        return (s * -z + (1 - s) * z.square()).sum(-1)

    def derivatives(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        s = p[rows]
        return -s + (1 - s) * 2 * z, ((1 - s) * 2).unsqueeze(-1)

    rows = torch.arange(4)
    found = minimise(value, derivatives, p0, (value(p0, rows), *derivatives(p0, rows)), 1e-10, 50)
    outcomes = [Outcome(int(s)) for s in found.status]
    assert outcomes[1] == outcomes[3] == Outcome.CONVERGED
    assert outcomes[2] == Outcome.NOT_FINITE
    assert outcomes[0] not in (Outcome.CONVERGED, Outcome.RUNNING)
    torch.testing.assert_close(found.z[1::2], torch.zeros(2, 1, dtype=D))


def test_products_with_a_matrix_a_sample() -> None:
    A, x, y = normal(5, 4, 3), normal(5, 3, seed=1), normal(5, 4, seed=2)
    torch.testing.assert_close(matvec(A, x), torch.einsum("bij,bj->bi", A, x))
    torch.testing.assert_close(vecmat(y, A), torch.einsum("bij,bi->bj", A, y))
    torch.testing.assert_close(matvec(A[:1], x), torch.einsum("ij,bj->bi", A[0], x))
    torch.testing.assert_close(vmap(matvec)(A.expand(2, 5, 4, 3), x.expand(2, 5, 3))[1], matvec(A, x))
    A, x = A.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(matvec, (A, x))
    assert torch.autograd.gradgradcheck(matvec, (A, x))


@pytest.mark.parametrize("alpha", [3.0, 0.3, 0.03])
def test_sums_that_are_straight_nearly_everywhere(alpha: float) -> None:
    """α Σ log cosh((u − xᵢ) / α), its start among straight pieces; against bisection of Σ tanh((u − xᵢ) / α)."""
    text = "given x in R^n\nargmin_{u in R} sum(softplus(2 (u - x) / a) - (u - x) / a)"
    layer = imp.compile(f"layer Pool(n):\n{text}".replace("/ a", f"/ {alpha}"))
    rng = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(100, 31, generator=rng, dtype=torch.float64)
    x[:, :10] += 20
    low, high = x.amin(-1), x.amax(-1)
    for _ in range(100):
        u = (low + high) / 2
        falls = torch.tanh((u.unsqueeze(-1) - x) / alpha).sum(-1) < 0
        low, high = torch.where(falls, u, low), torch.where(falls, high, u)
    solution = layer.solve(x)
    assert bool(solution.report.converged.all())
    torch.testing.assert_close(solution.value, u, rtol=1e-6, atol=1e-6)
