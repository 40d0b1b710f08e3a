"""`argmin` of quadratic and linear programs as layers: values, duals, gradients, failures, batches, transforms."""

from __future__ import annotations

import copy
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev, vmap

import implicitdsl as imp

D = torch.float64

OPTNET = """layer OptNet(n, m, p):
  given q in R^n, b in R^p, h in R^m
  param Q in PD(n)
        A in R^(p, n)
        G in R^(m, n)
  argmin_{z in R^n} 1/2 z^T Q z + q^T z subject to eq: A z = b, ineq: G z <= h
  return z, dual(ineq), dual(eq)
"""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def optnet() -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(3)
    layer = imp.compile(OPTNET, n=5, m=6, p=2).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(normal(*p.shape, seed=p.numel()))
    return layer, (normal(4, 5), 0.1 * normal(4, 2, seed=1), normal(4, 6, seed=2).abs())


def test_optnet_against_cvxpy() -> None:
    layer, (q, b, h) = optnet()
    z, ineq, eq = layer(q, b, h)
    Q, A, G = (getattr(layer, name).detach().numpy() for name in "QAG")
    for i in range(4):
        x = cp.Variable(5)
        rows = [G @ x <= h[i].numpy(), A @ x == b[i].numpy()]
        cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(Q)) + q[i].numpy() @ x), rows).solve(
            solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
        )
        np.testing.assert_allclose(z[i].detach().numpy(), x.value, atol=1e-7)
        np.testing.assert_allclose(ineq[i].detach().numpy(), rows[0].dual_value, atol=1e-6)
        np.testing.assert_allclose(eq[i].detach().numpy(), rows[1].dual_value, atol=1e-6)


def test_optnet_gradients() -> None:
    layer, inputs = optnet()
    grown = [t.clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(lambda *t: tuple(layer(*t)), grown, atol=1e-8, rtol=1e-8)
    assert torch.autograd.gradgradcheck(lambda *t: tuple(layer(*t)), grown, atol=1e-6)
    names = [name for name, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def with_parameters(*values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), inputs)[0]

    assert torch.autograd.gradcheck(with_parameters, values, atol=1e-7, rtol=1e-7)


def test_transforms() -> None:
    layer, (q, b, h) = optnet()
    single = lambda q: layer(q, b[0], h[0])[0].square().sum()
    looped = torch.stack([hessian(single)(v) for v in q])
    torch.testing.assert_close(vmap(hessian(single))(q), looped, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(vmap(jacrev(single))(q), torch.stack([jacrev(single)(v) for v in q]))


def test_any_batch_dimensions_and_none() -> None:
    layer, (q, b, h) = optnet()
    whole = layer(q, b, h)[0]
    torch.testing.assert_close(layer(q.view(2, 2, 5), b.view(2, 2, 2), h.view(2, 2, 6))[0].view(4, 5), whole)
    torch.testing.assert_close(layer(q[1], b[1], h[1])[0], whole[1])
    shared = h[0].clone().requires_grad_()
    each = h[0].expand(4, 6).clone().requires_grad_()
    for t in (shared, each):
        layer(q, b, t)[0].square().sum().backward()
    torch.testing.assert_close(shared.grad, each.grad.sum(0))


def test_survives_pickle_and_deepcopy() -> None:
    layer, inputs = optnet()
    expected = layer(*inputs)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(*inputs)[0], expected)


def test_float32_stays_float32() -> None:
    layer, inputs = optnet()
    expected = layer(*inputs)[0]
    single = layer.float()
    z = single(*(t.float() for t in inputs))[0]
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.double(), expected, rtol=1e-4, atol=1e-4)


def test_unconstrained_is_one_solve() -> None:
    layer = imp.compile("argmin_{w in R^n} ||A w - b||^2 + 0.1 ||w||^2", n=4, m=9).double()
    b = normal(3, 9)
    sol = layer.solve(b)
    A = layer.A.detach()
    expected = torch.linalg.solve(A.T @ A + 0.1 * torch.eye(4, dtype=D), (b @ A).T).T
    torch.testing.assert_close(sol.value, expected)
    assert "direct" in sol.report.solver
    assert sol.report.converged.all()


def test_least_squares_with_equalities() -> None:
    text = """layer Fit(n, m):
  given b in R^m, s in R
  param A in R^(m, n)
  argmin_{w in R^n} ||A w - b||^2 subject to total: sum(w) = s
  return w, dual(total)
"""
    layer = imp.compile(text, n=4, m=9).double()
    b, s = normal(3, 9), normal(3, seed=1)
    w, nu = layer(b, s)
    torch.testing.assert_close(w.sum(-1), s)
    A = layer.A.detach()
    gradient = 2 * (w @ A.T - b) @ A
    torch.testing.assert_close(gradient + nu.unsqueeze(-1), torch.zeros_like(gradient), atol=1e-10, rtol=0)


def test_simplex_projection_and_its_jacobian() -> None:
    layer = imp.compile("argmin_{z in simplex(n)} ||z - y||^2", n=6)
    y = normal(5, 6)
    ordered = y.sort(-1, descending=True).values
    count = (ordered * torch.arange(1, 7) > ordered.cumsum(-1) - 1).sum(-1, keepdim=True)
    shift = (ordered.cumsum(-1).gather(-1, count - 1) - 1) / count
    torch.testing.assert_close(layer(y), (y - shift).clamp(min=0), atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(layer, y.requires_grad_(), atol=1e-8)


def test_boxes_chains_and_argmax() -> None:
    """max x·y − ½ y² over [−1, 1]: y = clamp(x); the multiplier of the chain is what the clamp cuts off."""
    layer = imp.compile("argmax_{y in R^n} x^T y - 1/2 y^T y subject to box: -1 <= y <= 1\nreturn y, dual(box)", n=3)
    x = torch.tensor([[2.0, 0.5, -3.0]], dtype=D, requires_grad=True)
    y, dual = layer(x)
    torch.testing.assert_close(y, x.clamp(-1, 1))
    torch.testing.assert_close(dual, x - x.clamp(-1, 1), atol=1e-12, rtol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 1.0, 0.0]], dtype=D))
    again = imp.compile("argmin_{y in [-1, 1]^n} ||y - x||^2", n=3)
    torch.testing.assert_close(again(x.detach()), x.detach().clamp(-1, 1))


def test_coefficients_of_any_form() -> None:
    """What other languages refuse: products of parameters, exp and quotients of inputs."""
    text = """layer Free(n):
  given a in R, x in R^n, c in positive
  param b in R = 0.7
  where w = softmax(x)
  argmin_{z in R^n} 1/2 exp(a) z^T z + c z^T z - a b b (w^T z) subject to z[0] / c <= sin(a), sum(z) = a b
"""
    layer = imp.compile(text, n=3).double()
    a, x, c = normal(4), normal(4, 3, seed=1), normal(4, seed=2).abs() + 0.5
    assert torch.autograd.gradcheck(layer, [t.requires_grad_() for t in (a, x, c)], atol=1e-8)
    z = layer(a, x, c)
    assert (z[:, 0] / c <= a.sin() + 1e-10).all()
    torch.testing.assert_close(z.sum(-1), a * 0.7)


def test_linear_program() -> None:
    layer = imp.compile("argmin_{z in [0, 1]^n} c^T z subject to sum(z) = 2", n=5)
    c = normal(3, 5)
    z = layer(c)
    lowest = torch.zeros_like(c).scatter(1, c.argsort(-1)[:, :2], 1.0)
    torch.testing.assert_close(z, lowest, atol=1e-10, rtol=0)


MPC = """layer Mpc(N, n, m):
  given x0 in R^n
  param A in R^(n, n)
        B in R^(n, m)
        Q in PSD(n)
        R in PD(m)
  argmin_{x in R^(N+1, n), u in R^(N, m)} sum(x[i]^T Q x[i] + u[i]^T R u[i] for i in N)
    subject to x[0] = x0, dyn: x[i+1] = A x[i] + B u[i] for i in N, -0.4 <= u <= 0.4
  return u, x, dual(dyn)
"""


def test_predictive_control_over_an_index() -> None:
    torch.manual_seed(0)
    layer = imp.compile(MPC, N=5, n=3, m=2).double()
    x0 = 2 * normal(2, 3)
    u, x, dual = layer(x0)
    assert (u.abs() <= 0.4 + 1e-9).all()
    assert (u.abs() > 0.4 - 1e-9).any()
    A, B, Q, R = (getattr(layer, name).detach() for name in "ABQR")
    torch.testing.assert_close(x[:, 1:], x[:, :-1] @ A.T + u @ B.T, atol=1e-10, rtol=0)
    assert dual.shape == (2, 5, 3)
    for i in range(2):
        X, U = cp.Variable((6, 3)), cp.Variable((5, 2))
        rows = [X[0] == x0[i].numpy(), X[1:] == X[:-1] @ A.numpy().T + U @ B.numpy().T, U <= 0.4, U >= -0.4]
        cost = sum(
            cp.quad_form(X[k], cp.psd_wrap(Q.numpy())) + cp.quad_form(U[k], cp.psd_wrap(R.numpy())) for k in range(5)
        )
        cp.Problem(cp.Minimize(cost), rows).solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11)
        np.testing.assert_allclose(u[i].detach().numpy(), U.value, atol=1e-5)
    assert torch.autograd.gradcheck(lambda x0: layer(x0)[0], x0.requires_grad_(), atol=1e-7)


INFEASIBLE = """layer Box(n):
  given low in R^n, high in R^n
  argmin_{z in R^n} ||z||^2 subject to low <= z <= high
  using ipm(max_iter=50), on_failure=POLICY
"""


def test_one_infeasible_sample() -> None:
    low = torch.tensor([[1.0, -1.0], [1.0, 0.0], [2.0, -0.5]], dtype=D)
    high = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]], dtype=D)
    warn, nan, strict = (imp.compile(INFEASIBLE.replace("POLICY", p)) for p in ("warn", "nan", "raise"))
    with pytest.warns(imp.ConvergenceWarning, match="no point meets all constraints"):
        sol = warn.solve(low, high)
    assert sol.report.converged.tolist() == [True, False, True]
    expected = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=D)
    torch.testing.assert_close(sol.value[[0, 2]], expected, atol=1e-12, rtol=0)
    with pytest.warns(imp.ConvergenceWarning):
        z = nan(low.requires_grad_(), high)
    assert z[1].isnan().all()
    torch.testing.assert_close(z[[0, 2]], expected, atol=1e-12, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.ConvergenceWarning)
        z[[0, 2]].sum().backward()
    assert low.grad is not None
    torch.testing.assert_close(low.grad[[0, 2]], torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=D))
    with pytest.raises(imp.ConvergenceError, match="1 of 3") as error:
        strict(low, high)
    assert error.value.solution.report.converged.tolist() == [True, False, True]


def test_two_blocks_and_an_equilibrium_around() -> None:
    """An optimum inside the next block's coefficients, and a fixed point after it."""
    text = """layer Chain(n):
  given x in R^n
  param W in SpectralBall(n, 0.5)
  argmin_{p in simplex(n)} ||p - x||^2
  argmin_{q in R^n} ||q - p||^2 subject to sum(q) = 2
  find z in R^n such that z = tanh(W z + q)
  return z, p
"""
    layer = imp.compile(text, n=4).double()
    x = normal(3, 4).requires_grad_()
    z, p = layer(x)
    torch.testing.assert_close(p.sum(-1), torch.ones(3, dtype=D))
    torch.testing.assert_close(z, torch.tanh(z @ layer.W.T + p + 0.25))
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x, atol=1e-7)


@pytest.mark.parametrize("m", [3, 40])
def test_a_batch_of_no_samples(m: int) -> None:
    """Few rows are solved with walls, many are gathered."""
    text = """layer Empty(n, m):
      given q in R^n, h in R^m
      param G in R^(m, n)
      argmin_{z in R^n} ||z||^2 + q^T z subject to G z <= h"""
    layer = imp.compile(text, n=4, m=m).double()
    z = layer(torch.zeros(0, 4, dtype=D), torch.zeros(0, m, dtype=D))
    z.sum().backward()
    assert z.shape == (0, 4)
    assert not layer.G.grad.any()
