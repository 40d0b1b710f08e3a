"""Sums over an index whose terms do not meet are what they are on whole vectors: same rungs, same solutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.analysis.gathered import gathered
from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.dims import ONE, Dim
from implicitdsl.ir.nodes import Expr, Role, num, sym
from implicitdsl.ir.plan import Program
from implicitdsl.ir.printer import show

D = torch.float64


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 + torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


HEAD = "layer P(n):\n  given a in positive^n, A in R^(n, n)\n  "
PAIRS = {  # by index, whole, the words of the plan that both have
    "water filling": (
        "argmax_{x in nonneg^n} sum(log(a[i] + x[i]) for i in n) subject to sum(x[j] for j in n) = 1",
        "argmax_{x in nonneg^n} sum(log(a + x)) subject to sum(x) = 1",
        "on a diagonal Hessian",
    ),
    "bounds by index": (
        "argmin_{x in R^n} sum((x[i] - a[i])^2 for i in n) subject to sum(x) = 1, x[i] >= 0 for i in n",
        "argmin_{x in R^n} sum((x - a)^2) subject to sum(x) = 1, x >= 0",
        "by a sort of breakpoints",
    ),
    "two indices": (
        "argmin_{x in R^(n, n)} sum(x[i, j] * log(x[i, j]) + A[i, j] x[i, j] for i in n for j in n)"
        " subject to x ones(n) = a",
        "argmin_{x in R^(n, n)} sum(x * log(x) + A * x) subject to x ones(n) = a",
        "on a diagonal Hessian",
    ),
    "rows": (
        "argmin_{x in R^n} sum(softplus(a[i] * (A[i]^T x)) for i in n) + ||x||^2",
        "argmin_{x in R^n} sum(softplus(a * (A x))) + ||x||^2",
        "Newton's method with a line search",
    ),
    "neighbours": (
        "argmin_{x in R^n} sum(exp(x[i + 1] - x[i]) for i in 1:n - 1) + ||x - a||^2",
        "argmin_{x in R^n} sum(exp(x[2:n] - x[1:n - 1])) + ||x - a||^2",
        "Newton's method with a line search",
    ),
}


@pytest.mark.parametrize("name", list(PAIRS))
def test_by_index_and_whole(name: str) -> None:
    a, A = uniform(2, 4), uniform(2, 4, 4, seed=1)
    mine, theirs, words = PAIRS[name]
    found, expected = (imp.compile(HEAD + text, n=4)(a, A) for text in (mine, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert words in imp.explain(HEAD + mine)
    assert words in imp.explain(HEAD + theirs)


N = Dim.of("n")
x, a = (sym(name, Role.UNKNOWN, (N,)) for name in "xa")
X = sym("X", Role.UNKNOWN, (N, N))
i, j = Dim.of("i"), Dim.of("j")


def at(e: Expr, *places: Dim) -> Expr:
    return build.index(e, [build.at_item(p) for p in places])


def over(e: Expr, name: str, lo: Dim = ONE - ONE, hi: Dim = N) -> Expr:
    return build.sum_for(e, name, lo, hi)


@pytest.mark.parametrize(
    "e, text",
    [
        (over(build.power(at(x, i), num(3.0)), "i"), "sum(x^3)"),
        (over(build.mul(at(a, i), at(x, i + ONE)), "i", ONE, N - ONE), "sum(a[1:n - 1] * x[2:n])"),
        (over(build.mul(at(x, i), at(x, N - ONE - i)), "i"), None),  # from behind
        (over(at(x, i + i), "i"), None),
        (over(build.mul(build.dimension(i), at(x, i)), "i"), None),
        (over(over(at(X, j, i), "j"), "i"), "sum(sum(X[:n, i]) for i in n)"),
        (over(over(build.mul(at(a, i), at(X, i, j)), "j"), "i"), "sum(a[i] sum(X[i]) for i in n)"),
        (over(over(at(X, i, j), "j", hi=i), "i"), None),  # a triangle
    ],
)
def test_what_is_gathered(e: Expr, text: str | None) -> None:
    (found,) = [gathered(Program((x,), e, ()), TABLE).objective]
    assert (found is e) if text is None else (show(found) == text), show(found)
