"""Separable programs: boxes, simplices, half-spaces, weights; against the interior point, with every derivative."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev, vmap

import implicitdsl as imp

D = torch.float64

WEIGHTED = """layer Weighted(n):
  given p in R^n, a in R^n, b in R, low in R^n, high in R^n
  param w in positive^n
  argmin_{z in R^n} 1/2 sum(w * z^2) + p^T z subject to box: low <= z <= high, row: a^T z RELATION b
  return z, dual(box), dual(row)
"""
PROGRAMS = {
    "equality": WEIGHTED.replace("RELATION", "="),
    "halfspace": WEIGHTED.replace("RELATION", "<="),
    "above": WEIGHTED.replace("RELATION", ">="),
    "two unknowns": """layer Two(n):
  given p in R^n, a in R^n, b in R, low in R^n, high in R^n
  argmin_{z in nonneg^n, v in R} ||z - p||^2 + 3 (v - b)^2 subject to cap: z <= high - low, row: sum(z) + 2 v = b
  return z, v, dual(cap), dual(row)
""",
    "no row": """layer Free(n):
  given p in R^n, a in R^n, b in R, low in R^n, high in R^n
  argmin_{z in R^n} b^2 sum(z^2) + exp(b) z^T z - p^T z subject to cap: 2 z <= high + low
  return z, dual(cap)
""",
}


def data(rows: int, n: int = 5, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    p, a = 2 * torch.randn(rows, n, dtype=D, generator=g), torch.randn(rows, n, dtype=D, generator=g)
    low = -torch.rand(rows, n, dtype=D, generator=g) - 0.1
    high = torch.rand(rows, n, dtype=D, generator=g) + 0.1
    inside = low + (high - low) * torch.rand(rows, n, dtype=D, generator=g)
    return p, a, (a * inside).sum(-1), low, high


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_against_the_interior_point(name: str) -> None:
    torch.manual_seed(1)
    layer = imp.compile(PROGRAMS[name], n=5).double()
    general = imp.compile(PROGRAMS[name].replace("  return", "  using ipm()\n  return"), n=5).double()
    general.load_state_dict(layer.state_dict())
    inputs = data(64)
    sol = layer.solve(*inputs)
    assert sol.report.solver == "projection"
    assert sol.report.converged.all()
    for mine, theirs in zip(sol.value, general(*inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_derivatives(name: str) -> None:
    torch.manual_seed(1)
    layer = imp.compile(PROGRAMS[name], n=5).double()
    inputs = [t.requires_grad_() for t in data(6, seed=3)]
    assert torch.autograd.gradcheck(lambda *t: tuple(layer(*t)), inputs, atol=1e-8)
    assert torch.autograd.gradgradcheck(lambda *t: layer(*t)[0], inputs, atol=1e-6)
    fixed = [t.detach() for t in inputs]
    single = lambda p: layer(p, *(t[0] for t in fixed[1:]))[0].square().sum()
    looped = torch.stack([hessian(single)(p) for p in fixed[0]])
    torch.testing.assert_close(vmap(hessian(single))(fixed[0]), looped, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(vmap(jacrev(single))(fixed[0]), torch.stack([jacrev(single)(p) for p in fixed[0]]))


def test_projections_in_closed_form() -> None:
    """Box, capped simplex, and the simplex with n = 400, where a factorisation would take 400³ operations."""
    y = 3 * torch.randn(7, 400, dtype=D, generator=torch.Generator().manual_seed(0))
    box = imp.compile("argmin_{z in [-1, 1]^n} ||z - y||^2", n=400)
    torch.testing.assert_close(box(y), y.clamp(-1, 1), rtol=0, atol=0)
    simplex = imp.compile("argmin_{z in simplex(n)} ||z - y||^2", n=400)
    z = simplex(y)
    torch.testing.assert_close(z.sum(-1), torch.ones(7, dtype=D))
    ordered = y.sort(-1, descending=True).values
    count = (ordered * torch.arange(1, 401) > ordered.cumsum(-1) - 1).sum(-1, keepdim=True)
    shift = (ordered.cumsum(-1).gather(-1, count - 1) - 1) / count
    torch.testing.assert_close(z, (y - shift).clamp(min=0), atol=1e-12, rtol=0)
    capped = imp.compile("argmin_{z in [0, 1]^n} ||z - y||^2 subject to sum(z) <= 3", n=400)(y)
    assert (capped.sum(-1) <= 3 + 1e-9).all()
    assert ((capped >= 0) & (capped <= 1)).all()


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
@pytest.mark.parametrize("policy", ["warn", "nan"])
def test_samples_without_solution(policy: str) -> None:
    """An empty box, a row out of reach, a NaN: marked, and nobody else is touched."""
    torch.manual_seed(1)
    text = PROGRAMS["equality"].replace("  return", f"  using on_failure={policy}\n  return")
    layer = imp.compile(text, n=5).double()
    p, a, b, low, high = data(5)
    high[1] = low[1] - 1
    b[2] = 100.0
    p[3, 0] = torch.nan
    inputs = [t.clone().requires_grad_() for t in (p, a, b, low, high)]
    sol = layer.solve(*inputs)
    assert sol.report.converged.tolist() == [True, False, False, False, True]
    z = sol.value[0]
    good = [0, 4]
    alone = layer(*(t[good] for t in (p, a, b, low, high)))[0]
    torch.testing.assert_close(z[good], alone)
    (expected,) = torch.autograd.grad(alone.square().sum(), list(layer.parameters()))
    (found,) = torch.autograd.grad(z[good].square().sum(), list(layer.parameters()), retain_graph=True)
    torch.testing.assert_close(found, expected)
    of_inputs = torch.autograd.grad(z.sum(), inputs)[0]
    assert bool(of_inputs[1:4].isnan().all()) if policy == "nan" else bool((of_inputs[1:4] == 0).all())


def test_shapes_kinds_and_copies() -> None:
    """A matrix of unknowns, float32, shared inputs, no batch, pickle."""
    matrix = (
        "layer M(n, m):\n  given Y in R^(n, m)\n  argmin_{Z in R^(n, m)} ||Z - Y||_F^2 subject to Z >= 0, sum(Z) = 1"
    )
    layer = imp.compile(matrix, n=2, m=3)
    assert "projection" in imp.explain(layer)
    Y = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    Z = layer(Y)
    assert Z.dtype == torch.float32
    assert Z.shape == Y.shape
    torch.testing.assert_close(Z.sum((-1, -2)), torch.ones(4))
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(Y[1]), Z[1])
    bounded = "layer S(n):\n  given y in R^n, u in R^n\n  argmin_{z in nonneg^n} ||z - y||^2 subject to z <= u"
    shared = imp.compile(bounded, n=3)
    y, u = torch.randn(5, 3, dtype=D), torch.full((3,), 0.3, dtype=D, requires_grad=True)
    shared(y, u).sum().backward()
    torch.testing.assert_close(u.grad, (y > 0.3).double().sum(0))


def test_weakly_active_bounds_are_counted() -> None:
    sol = imp.compile("argmin_{z in nonneg^n} ||z - y||^2", n=3).solve(torch.tensor([[0.0, 1.0, -1.0]], dtype=D))
    assert "weakly active" in sol.report.message
