"""Smooth convex objectives over semidefinite matrices and norms: CVXPY, closed forms, gradients, failures."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

import implicitdsl as imp

D = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def symmetric(*shape: int, seed: int = 0) -> Tensor:
    G = normal(*shape, seed=seed)
    return (G + G.mT) / 2


def covariance(b: int, n: int, seed: int = 0) -> Tensor:
    A = normal(b, n, 2 * n, seed=seed)
    return A @ A.mT / (2 * n)


GAUSSIAN = """layer Gaussian(n):
  given S in PSD(n)
  argmin_{X in PSD(n)} tr(S X) - logdet(X)
  return X
"""


def test_the_most_likely_precision_is_the_inverse() -> None:
    layer = imp.compile(GAUSSIAN)
    S = covariance(3, 4)
    sol = layer.solve(S)
    assert sol.report.converged.all()
    assert sol.report.solver == "conic"
    expected = torch.linalg.inv(S)
    torch.testing.assert_close(sol.value, expected, rtol=1e-9, atol=1e-9)
    S.requires_grad_()
    g = normal(3, 4, 4, seed=1)
    (found,) = torch.autograd.grad((layer(S) * g).sum(), S)
    (exact,) = torch.autograd.grad((torch.linalg.inv((S + S.mT) / 2) * g).sum(), S)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def _semidefinite(n: int) -> Any:
    return cp.Variable((n, n), PSD=True)


Case = tuple[str, str, Callable[[Any, Any], Any], Callable[[Any, Any], list[Any]], float]
MATRIX: dict[str, Case] = {  # X in PSD(3), C symmetric
    "sparse precision": (
        "tr(C^T C X) + 0.3 tr(X) - logdet(X) + 0.2 sum(|X|)",
        "",
        lambda X, C: cp.trace((C @ C + 0.3 * np.eye(3)) @ X) - cp.log_det(X) + 0.2 * cp.sum(cp.abs(X)),
        lambda X, C: [],
        1e-4,
    ),
    "determinant": (
        "-logdet(X)",
        "cap: tr(X) <= 2, c: X[0, 1] + X[1, 2] <= C[0, 0]^2 - 0.5",
        lambda X, C: -cp.log_det(X),
        lambda X, C: [cp.trace(X) <= 2, X[0, 1] + X[1, 2] <= C[0, 0] ** 2 - 0.5],
        1e-4,
    ),
    "exponential": (
        "tr(C X) + exp(tr(X)) + 0.1 ||X||_F",
        "X[0, 0] = 0.5",
        lambda X, C: cp.trace(C @ X) + cp.exp(cp.trace(X)) + 0.1 * cp.norm(X, "fro"),
        lambda X, C: [X[0, 0] == 0.5],
        1e-4,
    ),
    "entropy": (
        "tr(C X) + 0.2 sum(diag(X) * log(diag(X)))",
        "tr(X) = 1, X - 0.1 I(3) >> 0",
        lambda X, C: cp.trace(C @ X) - 0.2 * cp.sum(cp.entr(cp.diag(X))),
        lambda X, C: [cp.trace(X) == 1, X - 0.1 * np.eye(3) >> 0],
        1e-4,
    ),
    "log-sum-exp": (
        "||X - C||_F^2 + logsumexp(X[0])",
        "||diag(X)|| <= 0.8",
        lambda X, C: cp.sum_squares(X - C) + cp.log_sum_exp(X[0]),
        lambda X, C: [cp.norm(cp.diag(X)) <= 0.8],
        1e-4,
    ),
}


@pytest.mark.parametrize("name", MATRIX)
def test_matrices_against_cvxpy_with_gradients(name: str) -> None:
    text, constraints, objective, conditions, tol = MATRIX[name]
    where = f" subject to {constraints}" if constraints else ""
    layer = imp.compile(f"layer L:\n  given C in Sym(3)\n  argmin_{{X in PSD(3)}} {text}{where}\n  return X")
    C = symmetric(2, 3, 3, seed=4)
    sol = layer.solve(C)
    assert sol.report.converged.all()
    for i in range(2):
        X = _semidefinite(3)
        value = cp.Problem(cp.Minimize(objective(X, C[i].numpy())), conditions(X, C[i].numpy()))
        value.solve(solver="CLARABEL")
        np.testing.assert_allclose(sol.value[i].numpy(), X.value, atol=tol)
    _check(lambda C: layer((C + C.mT) / 2), C)


def _check(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The derivative in one direction, of one combination, against central differences."""
    x, h = x.clone().requires_grad_(), 1e-5
    y = f(x)
    v, g = normal(*x.shape, seed=8), normal(*y.shape, seed=9)
    (found,) = torch.autograd.grad((y * g).sum(), x)
    with torch.no_grad():
        expected = ((f(x + h * v) - f(x - h * v)) * g).sum() / (2 * h)
    torch.testing.assert_close((found * v).sum(), expected, rtol=1e-6, atol=1e-7)


VECTOR: dict[str, Case] = {  # x in R^4, A of shape (6, 4)
    "group lasso of a logistic regression": (
        "sum(softplus(A x)) + 1.5 ||x[0:2]|| + 1.5 ||x[2:4]||",
        "",
        lambda x, A: cp.sum(cp.logistic(A @ x)) + 1.5 * cp.norm(x[:2]) + 1.5 * cp.norm(x[2:]),
        lambda x, A: [],
        1e-4,
    ),
    "exponentials in a moving ball": (
        "sum(exp(A x)) + ||x - 1||",
        "||x|| <= 1 + x[1], x[2] = 0.1",
        lambda x, A: cp.sum(cp.exp(A @ x)) + cp.norm(x - 1),
        lambda x, A: [cp.norm(x) <= 1 + x[1], x[2] == 0.1],
        1e-4,
    ),
    "robust logistic regression": (
        "sum(softplus(A[i]^T x + 0.3 ||x||) for i in 6) + 0.1 ||x||^2",
        "",
        lambda x, A: cp.sum(cp.logistic(A @ x + 0.3 * cp.norm(x))) + 0.1 * cp.sum_squares(x),
        lambda x, A: [],
        1e-4,
    ),
}


@pytest.mark.parametrize("name", VECTOR)
def test_norms_against_cvxpy_with_gradients(name: str) -> None:
    text, constraints, objective, conditions, tol = VECTOR[name]
    where = f" subject to {constraints}" if constraints else ""
    layer = imp.compile(f"layer L:\n  given A in R^(6, 4)\n  argmin_{{x in R^4}} {text}{where}\n  return x")
    A = normal(3, 6, 4, seed=2)
    sol = layer.solve(A)
    assert sol.report.converged.all()
    assert sol.report.solver == "conic"
    for i in range(3):
        x: Any = cp.Variable(4)
        problem = cp.Problem(cp.Minimize(objective(x, A[i].numpy())), conditions(x, A[i].numpy()))
        problem.solve(solver="CLARABEL")
        np.testing.assert_allclose(sol.value[i].numpy(), x.value, atol=tol)
    _check(layer, A)


def test_every_mode_shared_inputs_and_float32() -> None:
    layer = imp.compile("""layer Group(m):
  given A in R^(m, 4), w in nonneg
  argmin_{x in R^4} sum(softplus(A x)) + w ||x[0:2]|| + 2 ||x[2:4]||
  return x
""")
    A, w = normal(2, 3, 4, seed=3), torch.tensor(0.3, dtype=D)
    expected = torch.stack([jacrev(layer)(a, w) for a in A])
    for mode in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(mode(layer), (0, None))(A, w), expected, rtol=1e-7, atol=1e-9)
    w.requires_grad_()
    (shared,) = torch.autograd.grad(layer(A, w).sum(), w)
    apart = [torch.autograd.grad(layer(a, w).sum(), w)[0] for a in A]
    torch.testing.assert_close(shared, torch.stack(apart).sum())
    assert torch.autograd.gradgradcheck(lambda w: layer(A[:1], w), (w,), atol=1e-6)
    low = layer(A.detach().float(), w.detach().float())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, layer(A, w).detach().float(), rtol=1e-4, atol=1e-5)
    again = pickle.loads(pickle.dumps(layer))
    torch.testing.assert_close(again(A.unsqueeze(0), w)[0], layer(A, w))


def test_multipliers_meet_stationarity() -> None:
    layer = imp.compile("""layer Capped(n):
  given S in PSD(n), r in R
  argmin_{X in PSD(n)} tr(S X) - logdet(X) subject to cap: ||X||_F <= r, floor: X[0, 0] >= 0.1
  return X, dual(cap), dual(floor)
""")
    S, r = covariance(2, 3), torch.tensor([0.5, 100.0], dtype=D)
    X, cap, floor = layer(S, r)
    assert cap[0] > 1e-3
    assert abs(float(cap[1])) < 1e-9
    assert floor.abs().max() < 1e-9
    size = X.flatten(1).norm(dim=-1)
    gradient = S - torch.linalg.inv(X) + (cap / size)[:, None, None] * X
    torch.testing.assert_close(gradient, torch.zeros_like(X), atol=1e-7, rtol=0)


def test_lost_samples_are_named_and_others_untouched() -> None:
    layer = imp.compile("""layer Bounded(n):
  given C in Sym(n), b in R
  argmin_{X in PSD(n)} tr(C X) - logdet(X) subject to tr(X) <= b
  using on_failure=nan
  return X
""")
    eye = torch.eye(2, dtype=D)
    C = torch.stack([eye, eye, torch.nan * eye, -eye])
    b = torch.tensor([1.0, -1.0, 1.0, 2.0], dtype=D, requires_grad=True)
    with pytest.warns(imp.ConvergenceWarning):
        sol = layer.solve(C, b)
    assert sol.report.status.tolist() == [0, 12, 4, 0]
    assert sol.value[[1, 2]].isnan().all()
    torch.testing.assert_close(sol.value[[0, 3]], torch.stack([eye / 2, eye]), rtol=1e-8, atol=1e-8)
    free = imp.compile("layer F(n):\n  given C in Sym(n)\n  argmin_{X in PSD(n)} tr(C X) - logdet(X)\n")
    with pytest.warns(imp.ConvergenceWarning):
        sol = free.solve(torch.stack([eye, -eye]))
    assert sol.report.status.tolist() == [0, 13]
    torch.testing.assert_close(sol.value[0], eye, rtol=1e-8, atol=1e-8)


def test_equations_between_symmetric_matrices() -> None:
    """tr X + tr Y with X − Y = C is the sum of |eigenvalues|; both halves of the equation are one."""
    layer = imp.compile("""layer N(n):
  given C in Sym(n)
  argmin_{X in PSD(n), Y in PSD(n)} tr(X) + tr(Y) subject to X - Y = C
""")
    C = symmetric(2, 3, 3, seed=5)
    values, V = torch.linalg.eigh(C)
    torch.testing.assert_close(layer(C)[0], (V * values.clamp(min=0).unsqueeze(-2)) @ V.mT, rtol=1e-7, atol=1e-7)
    _check(lambda C: layer((C + C.mT) / 2)[0], C)


def test_the_reason_is_told() -> None:
    text = imp.explain(GAUSSIAN)
    assert "smooth and convex over semidefinite matrices" in text
    with pytest.raises(imp.SpecError, match="IMP910"):
        imp.compile(GAUSSIAN.replace("  return", "  using conic(solver=clarabel)\n  return"))


def test_domains_are_part_of_convex_programs() -> None:
    """logdet and inverses of affine matrices hold where these are definite: D- and A-optimal designs."""
    V = normal(2, 6, 3, seed=6)
    layers = {
        "argmax_{w in simplex(m)} logdet(V^T diag(w) V)": lambda M: -cp.log_det(M),
        "argmin_{w in simplex(m)} tr(inv(sum(w[i] V[i] V[i]^T for i in m)))": cp.tr_inv,
    }
    for text, objective in layers.items():
        layer = imp.compile(f"layer Design(m, n):\n  given V in R^(m, n)\n  {text}\n")
        sol = layer.solve(V)
        assert sol.report.converged.all()
        for i in range(2):
            w: Any = cp.Variable(6)
            M = sum(w[k] * np.outer(V[i, k], V[i, k]) for k in range(6))
            simplex: list[Any] = [w >= 0, cp.sum(w) == 1]
            cp.Problem(cp.Minimize(objective(M)), simplex).solve(solver="CLARABEL")
            np.testing.assert_allclose(sol.value[i].numpy(), w.value, atol=1e-4)
        _check(layer, V)
    codes = {d.code for d in imp.check("given A in R^(n, n)\nargmin_{x in R^n} -logdet(A + diag(x))\nreturn x")}
    assert "IMP601" in codes


def test_constraints_without_multipliers_are_counted() -> None:
    """The optimum of f lies on the boundary, of a half-space, of a ball or of the cone, without being pushed there."""
    text = """layer Weak(n):
  given S in PSD(n), r in R
  argmin_{X in PSD(n)} tr(S X) - logdet(X) subject to ||X||_F <= r, X[0, 0] <= 1
  return X
"""
    layer = imp.compile(text)
    S = torch.diag_embed(torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]], dtype=D))
    X = torch.linalg.inv(S)
    r = torch.tensor([9.0, float(X[1].norm()), 9.0], dtype=D)
    sol = layer.solve(S, r)
    torch.testing.assert_close(sol.value, X, rtol=1e-7, atol=1e-7)
    assert "2 samples have weakly active constraints" in str(sol.report)
    least = imp.compile(
        "layer P(n):\n  given C in Sym(n)\n  argmin_{X in PSD(n)} ||X - C||_F^2 + tr(X) subject to tr(X) <= 9\n"
    )
    sol = least.solve(torch.diag(torch.tensor([0.5, 2.0], dtype=D)))  # X = (C − ½ I)₊ with an eigenvalue 0
    assert "weakly active" in str(sol.report)


COMPILED = {
    "linear": "argmin_{X in PSD(2)} tr(S X) subject to diag(X) = 1",
    "smooth": "argmin_{X in PSD(2)} tr(S X) - logdet(X) subject to X[0, 1] <= 0.1",
    "norms": "argmin_{X in R^(2, 2)} ||X - S||_F + sum(exp(X))",
    "quadratic": "argmin_{X in R^(2, 2)} ||X - S||_F^2 + ||X[0]|| + 3 ||X[1]||",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("kind", COMPILED)
def test_programs_over_cones_are_one_graph(kind: str) -> None:
    torch.compiler.reset()
    layer = imp.compile(f"layer L:\n  given S in PSD(2)\n  {COMPILED[kind]}\n  return X")
    S = covariance(2, 2).requires_grad_()
    X = layer(S)
    (expected,) = torch.autograd.grad(X.square().sum(), S)
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(S)
    torch.testing.assert_close(found, X)
    (g,) = torch.autograd.grad(found.square().sum(), S)
    torch.testing.assert_close(g, expected, rtol=1e-9, atol=1e-10)
