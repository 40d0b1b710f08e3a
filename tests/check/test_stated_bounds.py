"""Rules of convexity count the signs that affine inequalities state, and products that are semidefinite matrices."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

HEAD = "layer Stated(n):\n  given a in R^n, p in positive^n, B in R^(n, n), Q in PSD(n)\n  argmin_{"
CONVEX = [
    "z in R^n} sum(1 / z) + p^T z subject to z >= 0.1",
    "z in R^n} sum(1 / z) subject to z >= p, sum(z) <= 9",
    "z in R^n} sum(1 / (z - a)) subject to z >= a, sum(z) <= 9",
    "z in R^n} sum(1 / (2 - 3 z)) + sum(z) subject to 3 z <= 1",
    "z in R^n} sum(1 / (-z)) - p^T z subject to z <= -0.1",
    "z in R^n} 1 / (a^T z) + ||z||^2 subject to a^T z >= 0.1, z <= 2",
    "z in R^n} sum(z^3) - p^T z subject to 0 <= z <= 1",
    "z in R^n} sum(1 / z[i] for i in n) + p^T z subject to z >= 0",
    "x in R^n, y in R} ||x - a||^2 / y + y subject to y >= 0",
    "z in R^n} p^T z subject to sum(1 / z) <= 2, z >= 0",
    "x in positive^n} max(x + p)^2 / sum(x) + ||x||^2",
    "z in R^n} (z - a)^T B B^T (z - a) + ||z||^2",
    "z in R^n} z^T B Q B^T z + a^T z + ||z||^2",
    "z in R^n} z^T B diag(p) B^T z + a^T z + ||z||^2",
    "X in R^(n, n)} tr(X^T Q X) + ||X - B||_F^2",
    "X in R^(n, n)} 1/2 tr((X - B) Q (X - B)^T) + ||X||_F^2",
]
NOT_CONVEX = [
    "z in R^n} sum(1 / z) subject to z[0] >= 0.1",
    "z in R^n} sum(1 / z) subject to z >= a",
    "z in R^n} sum(1 / z) subject to z <= 0.1",
    "z in R^n} sum(1 / z) subject to ||z||^2 >= z",
    "z in R^n} sum(1 / z[i] for i in n) + ||z||^2 subject to z[i] >= 0.1 for i in 1:n",
    "z in R^n} sum(1 / z) subject to 1 / z >= 0",
    "z in R^n} z^T B Q z + ||z||^2",
    "z in R^n} z^T B diag(a) B^T z + ||z||^2",
    "z in R^n} z^T B B z + ||z||^2",
    "X in R^(n, n)} tr(X Q X) + ||X||_F^2",
    "X in R^(n, n)} tr(X^T B X) + ||X||_F^2",
    "x in positive^n} min(x + a)^2 / sum(x) + ||x||^2",
]


def errors(program: str) -> set[str]:
    text = HEAD + program
    return {d.code for d in imp.check(text) if d.is_error}


@pytest.mark.parametrize("program", CONVEX)
def test_convex(program: str) -> None:
    assert not errors(program)


@pytest.mark.parametrize("program", NOT_CONVEX)
def test_not_convex(program: str) -> None:
    assert errors(program) <= {"IMP601", "IMP602"}
    assert errors(program)


def test_a_queue_by_its_optimality_conditions() -> None:
    """min Σ 1 / (zᵢ − aᵢ) with Σ z = c has equal distances."""
    layer = imp.compile(
        "layer Queue(n):\n  given a in R^n, c in R\n  argmin_{z in R^n} sum(1 / (z - a)) subject to z >= a, sum(z) <= c"
    )
    a, c = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)
    torch.testing.assert_close(layer(a, c), a + (c - a.sum()) / 3)


def test_a_trace_by_its_equation() -> None:
    """min tr(Xᵀ Q X) + ‖X − B‖² solves (Q + I) X = B."""
    layer = imp.compile(
        "layer Trace(n):\n  given B in R^(n, n), Q in PSD(n)\n  argmin_{X in R^(n, n)} tr(X^T Q X) + ||X - B||_F^2"
    )
    rng = torch.Generator().manual_seed(0)
    B, L = torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    Q = L @ L.mT
    torch.testing.assert_close(layer(B, Q), torch.linalg.solve(Q + torch.eye(3, dtype=Q.dtype), B))


def test_what_a_set_cannot_say_is_a_constraint() -> None:
    found = imp.check("layer L(n):\n  given q in R^n, r in positive\n  argmin_{z in ball(n, r)} ||z - q||^2")
    assert [(d.code, d.help is not None and "||z|| <= r" in d.help) for d in found if d.is_error] == [("IMP704", True)]
