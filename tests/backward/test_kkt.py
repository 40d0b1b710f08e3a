"""Derivatives of quadratic optima: finite differences, all orders, all modes of torch.func, failed rows."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.kkt import Spec, quadratic_optimum
from implicitdsl.ground.errors import ConvergenceError, ConvergenceWarning
from implicitdsl.solvers.optimum.interior_point import InteriorPoint
from implicitdsl.solvers.optimum.pivoting import Dense
from implicitdsl.solvers.optimum.quadratic import Quadratic, weakly_active

D = torch.float64
N, M, P, B = 4, 6, 1, 3
SPEC = Spec(InteriorPoint(), P)


def data() -> tuple[Tensor, ...]:
    """L, q, C, d with active and inactive rows; C is shared by the batch."""
    g = torch.Generator().manual_seed(0)
    L = torch.randn(B, N, N, dtype=D, generator=g)
    q = torch.randn(B, N, dtype=D, generator=g)
    C = torch.randn(P + M, N, dtype=D, generator=g)
    return L, q, C, torch.rand(B, P + M, dtype=D, generator=g) * 0.3


def solve(L: Tensor, q: Tensor, C: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    z, y, _ = quadratic_optimum(SPEC, L @ L.mT + 0.1 * torch.eye(N, dtype=D), q, C, d)
    return z, y


def loss(*inputs: Tensor) -> Tensor:
    z, y = solve(*inputs)
    return (z.sin() * torch.linspace(1, 2, N, dtype=D)).sum() + y.square().sum()


def test_the_data_have_active_and_inactive_rows() -> None:
    L, q, C, d = data()
    problem = Quadratic(L @ L.mT + 0.1 * torch.eye(N, dtype=D), q, C, d, P)
    *_, found = quadratic_optimum(SPEC, *problem[:4])
    share = found.active[:, P:].double().mean()
    assert 0.1 < float(share) < 0.9
    assert weakly_active(problem, found.z, found.y).sum() == 0


def test_the_factor_of_the_pivoting_serves_the_backward_pass() -> None:
    L, q, C, d = (t.requires_grad_() for t in data())

    def layer(solver: InteriorPoint | Dense) -> list[Tensor]:
        z, y, _ = quadratic_optimum(Spec(solver, P), L @ L.mT + 0.1 * torch.eye(N, dtype=D), q, C, d)
        return list(torch.autograd.grad(z.sin().sum() + y.square().sum(), (L, q, C, d)))

    for a, b in zip(layer(Dense()), layer(InteriorPoint()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_finite_differences_first_and_second_order() -> None:
    inputs = [t.requires_grad_() for t in data()]
    assert torch.autograd.gradcheck(solve, inputs, eps=1e-6, atol=1e-8, rtol=1e-8)
    assert torch.autograd.gradgradcheck(solve, inputs, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", range(4))
def test_modes_agree(k: int) -> None:
    inputs = data()
    grown = [t.clone().requires_grad_() for t in inputs]
    (expected,) = torch.autograd.grad(loss(*grown), grown[k])
    torch.testing.assert_close(jacrev(loss, k)(*inputs), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacfwd(loss, k)(*inputs), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", range(4))
def test_hessians_agree(k: int) -> None:
    inputs = data()
    expected = jacrev(jacrev(loss, k), k)(*inputs)
    torch.testing.assert_close(hessian(loss, k)(*inputs), expected, rtol=1e-9, atol=1e-9)
    grown = [t.clone().requires_grad_() for t in inputs]
    (g,) = torch.autograd.grad(loss(*grown), grown[k], create_graph=True)
    direction = torch.randn_like(g)
    (product,) = torch.autograd.grad((g * direction).sum(), grown[k])
    full = (expected.flatten(g.ndim) @ direction.flatten()).reshape(g.shape)
    torch.testing.assert_close(product, full, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("transform", [jacfwd, jacrev, hessian])
def test_mapped_derivatives_are_those_of_a_loop(transform: object) -> None:
    L, q, C, d = data()
    several = torch.stack([q, q + 0.01, q - 0.02])
    f = transform(lambda v: loss(L, v, C, d))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(vmap(f)(several), torch.stack([f(v) for v in several]), rtol=1e-12, atol=1e-12)


def test_mapped_over_samples() -> None:
    L, q, C, d = data()

    def one(L: Tensor, q: Tensor, d: Tensor) -> Tensor:
        z, _, _ = quadratic_optimum(SPEC, L @ L.mT + 0.1 * torch.eye(N, dtype=D), q, C, d)
        return z[0]

    torch.testing.assert_close(vmap(one)(L, q, d), solve(L, q, C, d)[0], rtol=1e-12, atol=1e-12)
    _, tangent = jvp(lambda q: vmap(one)(L, q, d), (q,), (torch.ones_like(q),))
    _, expected = jvp(lambda q: solve(L, q, C, d)[0], (q,), (torch.ones_like(q),))
    torch.testing.assert_close(tangent, expected, rtol=1e-11, atol=1e-11)


def test_shared_inputs_get_the_sum() -> None:
    L, q, C, d = data()
    shared = C.clone().requires_grad_()
    each = C.expand(B, P + M, N).clone().requires_grad_()
    for t in (shared, each):
        loss(L, q, t, d).backward()
    torch.testing.assert_close(shared.grad, each.grad.sum(0), rtol=1e-11, atol=1e-11)


def box(low: Tensor, high: Tensor, policy: str) -> tuple[Tensor, Tensor]:
    """min ½ z² − 5 z over [low, high] in one dimension: z = high."""
    C = torch.tensor([[1.0], [-1.0]], dtype=D)
    spec = Spec(InteriorPoint(), 0, Failures(policy, "here:1"))
    d = torch.stack([high, -low], -1)
    return quadratic_optimum(spec, torch.eye(1, dtype=D), torch.tensor([-5.0], dtype=D), C, d)[:2]


def test_failed_rows() -> None:
    low = torch.tensor([0.0, 1.0, 0.0], dtype=D)
    high = torch.tensor([1.0, -1.0, 2.0], dtype=D, requires_grad=True)
    with pytest.warns(ConvergenceWarning, match="1 of 3 samples did not converge"):
        z, _ = box(low, high, "warn")
    z.sum().backward()
    torch.testing.assert_close(high.grad, torch.tensor([1.0, 0.0, 1.0], dtype=D))
    torch.testing.assert_close(z[[0, 2], 0], torch.tensor([1.0, 2.0], dtype=D))
    with pytest.raises(ConvergenceError, match="here:1"):
        box(low, high, "raise")
    with pytest.warns(ConvergenceWarning):
        z, y = box(low, high, "nan")
    assert z[1].isnan().all()
    assert y[1].isnan().all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = jacfwd(lambda h: box(low, h, "warn")[0].squeeze(-1))(high.detach())
    torch.testing.assert_close(rows, torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=D)))


def test_a_minimiser_that_is_not_unique_has_no_derivative() -> None:
    """min z₀ over a box: z₁ is free, so nothing is claimed of its derivative, and one is told."""
    q = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=D, requires_grad=True)
    eye = torch.eye(2, dtype=D)
    d = torch.ones(1, 4, dtype=D, requires_grad=True)
    z, _, _ = quadratic_optimum(Spec(InteriorPoint(), 0), None, q, torch.cat([eye, -eye]), d.expand(2, 4))
    with pytest.warns(ConvergenceWarning, match="IMP802"):
        z.sum().backward()
    torch.testing.assert_close(q.grad, torch.zeros(2, 2, dtype=D), atol=1e-12, rtol=0)
    torch.testing.assert_close(d.grad, torch.tensor([[0.0, 0.0, -1.0, -1.0]], dtype=D))


def test_redundant_equalities_in_every_mode() -> None:
    C = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], dtype=D)
    d = torch.tensor([[1.0, 2.0]], dtype=D)
    y = torch.randn(1, 3, dtype=D, generator=torch.Generator().manual_seed(1))

    def project(y: Tensor) -> Tensor:
        return quadratic_optimum(Spec(None, 2), torch.eye(3, dtype=D), -y, C, d)[0]

    expected = torch.eye(3, dtype=D) - 1 / 3
    for mode in (jacrev, jacfwd):
        torch.testing.assert_close(mode(project)(y)[0, :, 0], expected, rtol=1e-9, atol=1e-9)
    plain = torch.autograd.functional.jacobian(project, y)
    torch.testing.assert_close(plain[0, :, 0], expected, rtol=1e-9, atol=1e-9)
