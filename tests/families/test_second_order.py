"""Norms as second-order cones: optima at their kinks, multipliers, gradients of both orders, failures."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.optimum import conic

D = torch.float64

GROUPS = """layer Groups(m, n):
  given b in R^m, lam in positive
  param A in R^(m, n), B in R^(m, n)
  argmin_{x in R^n, w in R^n} 0.5 ||A x + B w - b||^2 + lam ||x|| + lam ||w||
"""
MIXED = """layer Mixed(n, m):
  given p in R^n, a in R^m, r in positive
  param A in R^(m, n), F in R^(2, n)
  argmin_{x in R^n} p^T x + 0.1 ||x - 1||^2 + 0.5 ||x[0:2]||
    subject to eq: F x = 1, far: ||A x + a|| <= r + x[0], box: x <= 1.5, ||x[i:i+2]|| <= 2 for i in n-1
  return x, dual(far), dual(box), dual(eq)
"""


def groups() -> tuple[Any, Tensor, Tensor]:
    layer = imp.compile(GROUPS, m=6, n=3).double()
    torch.manual_seed(0)
    layer.A, layer.B = (torch.nn.Parameter(torch.randn(6, 3, dtype=D)) for _ in range(2))
    return layer, torch.randn(6, 6, dtype=D), torch.tensor([0.05, 0.5, 1.0, 2.0, 4.0, 30.0], dtype=D)


def mixed() -> tuple[Any, tuple[Tensor, ...]]:
    layer = imp.compile(MIXED, n=4, m=3).double()
    torch.manual_seed(1)
    layer.A, layer.F = torch.nn.Parameter(torch.randn(3, 4, dtype=D)), torch.nn.Parameter(torch.rand(2, 4, dtype=D))
    return layer, (torch.randn(3, 4, dtype=D), 0.3 * torch.randn(3, 3, dtype=D), torch.tensor([2.0, 3.0, 4.0], dtype=D))


def test_zero_groups_meet_the_subgradient_condition() -> None:
    layer, b, lam = groups()
    found = layer.solve(b, lam)
    assert bool(found.report.converged.all())
    assert found.report.solver == "conic"
    x, w = (t.detach() for t in found.value)
    pull = x @ layer.A.T.detach() + w @ layer.B.T.detach() - b
    zero = 0
    for part, M in ((x, layer.A.detach()), (w, layer.B.detach())):
        g, size = pull @ M, part.norm(dim=-1, keepdim=True)
        gone = size.squeeze(-1) < 1e-12
        zero += int(gone.sum())
        assert bool((g.norm(dim=-1) <= lam + 1e-10)[gone].all())
        torch.testing.assert_close(g[~gone], (-lam.unsqueeze(-1) * part / size)[~gone], rtol=1e-8, atol=1e-9)
    assert 3 <= zero < 12


def test_gradients_of_both_orders_at_zero_groups_and_elsewhere() -> None:
    layer, b, lam = groups()
    mapped = torch.func.vmap(lambda b, lam: layer(b, lam)[0])(b, lam)
    torch.testing.assert_close(mapped, layer(b, lam)[0], rtol=1e-9, atol=1e-10)
    b, lam = b[:5:2], lam[:5:2].clone().requires_grad_()  # one with two groups, two with one of them
    assert (layer(b, lam)[0].norm(dim=-1) > 1e-9).tolist() != (layer(b, lam)[1].norm(dim=-1) > 1e-9).tolist()
    assert torch.autograd.gradcheck(lambda lam: tuple(layer(b, lam)), (lam,), atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda lam: layer(b, lam)[1], (lam,), atol=1e-4)


def test_cones_of_several_lengths_with_bounds_and_equalities_against_cvxpy() -> None:
    layer, (p, a, r) = mixed()
    found = layer(p, a, r)
    A, F = layer.A.detach().numpy(), layer.F.detach().numpy()
    for i in range(3):
        x = cp.Variable(4)
        rows = [F @ x == 1, cp.norm(A @ x + a[i].numpy()) <= float(r[i]) + x[0], x <= 1.5]
        rows += [cp.norm(x[k : k + 2]) <= 2 for k in range(3)]
        objective = p[i].numpy() @ x + 0.1 * cp.sum_squares(x - 1) + 0.5 * cp.norm(x[:2])
        cp.Problem(cp.Minimize(objective), rows).solve(
            solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
        )
        assert x.value is not None
        np.testing.assert_allclose(found[0][i].detach().numpy(), x.value, atol=1e-5)
        for mine, row in zip(found[1:], (rows[1], rows[2], rows[0]), strict=True):
            np.testing.assert_allclose(mine[i].detach().numpy(), np.squeeze(row.dual_value), atol=1e-4)
    point = tuple(t[:2].clone().requires_grad_() for t in (p, a, r))
    assert torch.autograd.gradcheck(lambda *data: tuple(layer(*data)), point, atol=1e-6)


def test_clarabel_solves_what_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its name second-order cones are solved a batch at a time."""
    layer, (p, a, r) = mixed()
    named = imp.compile(MIXED.replace("  return", "  using conic(solver=clarabel)\n  return"), n=4, m=3).double()
    named.load_state_dict(layer.state_dict())
    expected = layer(p, a, r)

    def batched(*_: object) -> None:
        raise AssertionError

    for kind in (conic.Minty, conic.NesterovTodd):
        monkeypatch.setattr(kind, "solve", batched)
    torch.testing.assert_close(named(p, a, r), expected, rtol=1e-8, atol=1e-9)
    with pytest.raises(AssertionError):
        layer(p, a, r)


def test_sums_of_norms_over_an_index() -> None:
    text = (
        "layer Nearest(k, n):\n  given Y in R^(k, n)\n"
        "  argmin_{X in R^(k, n)} 0.5 ||X - Y||_F^2 + sum(||X[i]|| for i in k)"
    )
    torch.manual_seed(0)
    Y = torch.randn(2, 5, 3, dtype=D)
    size = Y.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(imp.compile(text)(Y), Y * (1 - 1 / size).clamp(min=0), rtol=1e-9, atol=1e-10)


def test_samples_without_solution_are_marked_alone() -> None:
    layer, (p, a, r) = mixed()
    good = layer(p, a, r)[0]
    p, r = p.clone(), r.clone()
    p[0], r[1] = torch.nan, 1e-3
    a[1] = 50.0
    with pytest.warns(imp.ConvergenceWarning, match="2 of 3"):
        found = layer.solve(p, a, r)
    status = found.report.status.tolist()
    assert status[:2] == [int(Outcome.NOT_FINITE), int(Outcome.INFEASIBLE)]
    torch.testing.assert_close(found.value[0][2], good[2], rtol=1e-8, atol=1e-9)


def test_nlp_still_sees_norms_as_functions() -> None:
    text = "argmin_{x in R^n} 0.5 ||x - y||^2 + ||x||"
    y = torch.tensor([[3.0, 4.0]], dtype=D)
    for using in ("", "\nusing nlp()"):
        found = imp.compile(text + using).solve(y)
        assert found.report.solver == ("nlp" if using else "conic")
        torch.testing.assert_close(found.value, 0.8 * y, rtol=1e-8, atol=1e-9)


def test_what_is_nearly_feasible_far_away_is_no_solution() -> None:
    """‖(2, x − y)‖ ≤ x + y says x y ≥ 1: with x = 0 it holds nearly for large y, and never."""
    text = "layer W(n):\n  given c in R^n\n  argmin_{z in R^n} c^T z + 0.01 ||z||^2"
    layer = imp.compile(text + " subject to ||[2, z[0] - z[1]]|| <= z[0] + z[1], z[0] = 0\n", n=2)
    with pytest.warns(imp.ConvergenceWarning, match="2 of 2"):
        assert not layer.solve(torch.tensor([[1.0, 0.5], [-1.0, 2.0]], dtype=torch.float64)).report.converged.any()
