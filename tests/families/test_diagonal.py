"""Separable convex objectives over coupling rows: closed forms, the general method, every derivative, lost samples."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, hessian, jacfwd, jacrev, vmap

import implicitdsl as imp
from implicitdsl.solvers.optimum.bordered import Bordered

D = torch.float64


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


TRANSPORT = """layer Transport(n, m):
  given C in R^(n, m), a in R^n, b in R^m
  argmin_{X in nonneg^(n, m)} sum(C * X) + 0.1 sum(X * log(X)) subject to X ones(m) = a, X^T ones(n) = b
"""


def test_entropic_transport_is_sinkhorns() -> None:
    """One of the rows follows from the others: the plan is unique all the same, and so is its gradient."""
    layer = imp.compile(TRANSPORT, n=4, m=3)
    C = uniform(2, 4, 3)
    a, b = torch.softmax(uniform(2, 4, seed=1), -1), torch.softmax(uniform(2, 3, seed=2), -1)
    K, u, v = (-C / 0.1).exp(), torch.ones_like(a), b
    for _ in range(3000):
        v = b / (K.mT @ u.unsqueeze(-1)).squeeze(-1)
        u = a / (K @ v.unsqueeze(-1)).squeeze(-1)
    sol = layer.solve(C, a, b)
    assert sol.report.converged.all()
    torch.testing.assert_close(sol.value, u.unsqueeze(-1) * K * v.unsqueeze(-2), rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda C: layer(C, a, b), C.requires_grad_(), atol=1e-8, fast_mode=True)
    one = lambda C: layer(C, a[0], b[0])
    C = C.detach()[0]
    J = jacfwd(one)(C)
    torch.testing.assert_close(J, jacrev(one)(C), rtol=1e-8, atol=1e-9)
    square, step = lambda C: one(C).square().sum(), 1e-5 * uniform(4, 3, seed=3)
    expected = (jacrev(square)(C + step) - jacrev(square)(C - step)) / 2
    torch.testing.assert_close((hessian(square)(C) * step).sum((-2, -1)), expected, rtol=1e-5, atol=1e-11)
    assert torch.autograd.gradgradcheck(one, C.requires_grad_(), atol=1e-6, fast_mode=True)
    marked = imp.compile(TRANSPORT.replace("X^T", "last: X^T") + "  return X, dual(last)\n", n=4, m=3)
    with pytest.warns(imp.ConvergenceWarning, match="IMP802"):  # they are not unique: asked for, that is said
        jacfwd(lambda C: marked(C, a[0], b[0])[1])(C.detach())


WATER = """layer Water(n):
  given a in positive^n, p in R
  argmax_{x in nonneg^n} sum(log(a + x)) subject to power: sum(x) = p
  return x, dual(power)
"""


def test_water_filling() -> None:
    """x = (level − a)₊ with Σ x = p, and 1 / level is the multiplier."""
    layer = imp.compile(WATER, n=5)
    a, p = uniform(3, 5) + 0.1, torch.tensor([0.1, 1.0, 5.0], dtype=D)
    x, price = layer(a, p)
    filled = a.sort(-1).values
    levels = (p.unsqueeze(-1) + filled.cumsum(-1)) / torch.arange(1, 6)
    count = (levels > filled).sum(-1, keepdim=True) - 1
    level = levels.gather(-1, count)
    torch.testing.assert_close(x, (level - a).clamp(min=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(price, 1 / level.squeeze(-1), rtol=1e-12, atol=1e-12)
    both = lambda a, p: tuple(layer(a, p))
    assert torch.autograd.gradcheck(both, (a.requires_grad_(), p.requires_grad_()), atol=1e-8)
    assert torch.autograd.gradgradcheck(both, (a.detach()[:1].requires_grad_(), p.detach()[:1].requires_grad_()))


GENERAL: dict[str, str] = {
    "logarithms": "{x in R^n} -sum(log(x)) + c^T x subject to top: A x <= b",
    "two unknowns": "{x in R^n, t in nonneg^n} sum(exp(x)) + sum((t - c)^4) + ||x||^2 subject to top: A (x + t) <= b",
    "a box": "{x in [0, 1]^n} sum(x * log(x) + (1 - x) * log(1 - x)) + c^T x subject to A x <= b, top: x <= 0.4",
    "powers": "{x in nonneg^n} sum(x^1.5) - c^T x subject to A x = b, top: 0.05 <= x",
    "quotients": "{x in positive^n} sum(1 / x) + sum(c * x) subject to top: A x <= b",
}


@pytest.mark.parametrize("name", list(GENERAL))
def test_against_the_general_method(name: str) -> None:
    """Values, multipliers, and the gradients of all that is in them."""
    text = f"layer P(n, m):\n  given c in R^n, b in R^m\n  param A in R^(m, n)\n  argmin_{GENERAL[name]}\n"
    mine = imp.compile(text + "  return x, dual(top)\n", n=6, m=2).double()
    other = imp.compile(text + "  using nlp(method=newton)\n  return x, dual(top)\n", n=6, m=2).double()
    assert "diagonal Hessian" in imp.explain(mine)
    c, A = 0.5 + uniform(3, 6), 0.5 + uniform(2, 6, seed=2)
    b = (0.1 + 0.3 * uniform(3, 6, seed=1)) @ A.mT

    def run(layer: Any, c: Tensor, b: Tensor, A: Tensor) -> tuple[Tensor, ...]:
        return tuple(functional_call(layer, {"A": A}, (c, b)))

    for found, expected in zip(run(mine, c, b, A), run(other, c, b, A), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    leaves = [t.requires_grad_() for t in (c, b, A)]
    assert torch.autograd.gradcheck(lambda *t: run(mine, *t), leaves, atol=1e-7, fast_mode=True)
    mine.A = A.detach()
    assert float(mine.solve(c, b).report.residual.max()) < 1e-12


ENTROPY = """layer Entropy(n, m):
  given b in R^m
  param A in R^(m, n)
  argmax_{x in R^n} -sum(x * log(x)) subject to A x = b
"""


def test_every_mode_float32_and_copies() -> None:
    layer = imp.compile(ENTROPY, n=6, m=2).double()
    layer.A = uniform(2, 6)
    b = uniform(3, 6, seed=1) @ layer.A.detach().mT
    forward, reverse = vmap(jacfwd(layer))(b), vmap(jacrev(layer))(b)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)
    square = lambda b: layer(b).square().sum()
    twice = vmap(jacfwd(jacrev(square)))(b)
    torch.testing.assert_close(vmap(hessian(square))(b), twice, rtol=1e-9, atol=1e-10)
    single = pickle.loads(pickle.dumps(layer)).float()
    z = single(b.float())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.double(), layer(b), rtol=1e-5, atol=1e-6)


def test_lost_samples_harm_no_other() -> None:
    """Σ x = −1 with x > 0 has no solution, NaN no meaning; the gradient of what all share is that of the rest."""
    text = "layer E(n):\n  given c in R^n, p in R\n  param w in R^n\n" + (
        "  argmin_{x in R^n} sum(x * log(x)) + sum(w * c * x) subject to sum(x) = p, x <= 0.6\n"
    )
    c, p = uniform(4, 5), torch.tensor([1.0, -1.0, 1.0, 2.0], dtype=D)
    c[2, 1] = torch.nan
    layer = imp.compile(text + "  using on_failure=nan\n", n=5).double()
    layer.w = uniform(5, seed=1)
    with pytest.warns(imp.ConvergenceWarning, match="2 of 4"):
        sol = layer.solve(c, p)
    assert sol.report.status.tolist()[1] == 12, "infeasible"
    assert sol.value.isnan().any(-1).tolist() == [False, True, True, False]
    torch.testing.assert_close(sol.value[[0, 3]], layer(c[[0, 3]], p[[0, 3]]), rtol=1e-12, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.ConvergenceWarning)
        (found,) = torch.autograd.grad(layer(c, p).nan_to_num().square().sum(), layer.w)
    (expected,) = torch.autograd.grad(layer(c[[0, 3]], p[[0, 3]]).square().sum(), layer.w)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_no_minimum_is_said() -> None:
    """Σ log(x) grows without end, with ever smaller slope; and numbers alone have no dtype of their own."""
    free = imp.compile(
        "layer F(n):\n  given c in R^n\n  argmax_{x in R^n} sum(log(x)) subject to x[0] - x[1] <= c[0]\n"
    )
    with pytest.warns(imp.ConvergenceWarning, match="without bound"):
        sol = free.solve(uniform(2, 3))
    assert not sol.report.converged.any()
    held = imp.compile("layer H(n):\n  given c in R^n\n  argmax_{x in R^n} sum(log(x)) subject to sum(x) <= 1\n", n=4)
    torch.testing.assert_close(held(uniform(2, 4)), torch.full((2, 4), 0.25, dtype=D), rtol=1e-12, atol=1e-12)


def test_what_it_takes_is_told() -> None:
    told = {
        "sum(x * log(x)) + c^T x subject to sum(x) = 1": "no term of sum(x * log(x)) + c^T x holds two entries",
        "logsumexp(x) + ||x||^2 subject to sum(x) = 1": "interior point on the optimality conditions",
    }
    for program, reason in told.items():
        text = f"layer T(n):\n  given c in R^n\n  argmin_{{x in R^n}} {program}, x <= 2\n"
        assert reason in imp.explain(text)


@pytest.mark.parametrize("transposed", [False, True])
def test_bordered_systems_against_dense_ones(transposed: bool) -> None:
    B, n, k = 3, 6, 4
    H, C, place = uniform(B, n) + 0.1, uniform(B, k, n, seed=1) - 0.5, torch.tensor([0, 1, 2, 0])
    s, sense = torch.tensor([1.0, -2.0, 1.0, -1.0], dtype=D), torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=D)
    on = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    held = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()
    S = torch.zeros(4, n, dtype=D)
    S[torch.arange(4), place] = s
    top = torch.cat([torch.diag_embed(H), C.mT, S.mT.expand(B, n, 4)], -1)
    rows = torch.cat([sense.unsqueeze(-1) * C * on.unsqueeze(-1), -S * held.unsqueeze(-1)], -2)
    J = torch.cat([top, torch.cat([rows, torch.diag_embed(1.0 - torch.cat([on, held], -1).to(D))], -1)], -2)
    b = uniform(B, n + k + 4, seed=2)
    found = Bordered.of(H, C, sense, on, place, s, held).solve(b, transposed)
    torch.testing.assert_close(found, torch.linalg.solve(J.mT if transposed else J, b), rtol=1e-9, atol=1e-9)
