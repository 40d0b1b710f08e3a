"""Curvature rules: never refuted by Jensen's inequality on random expressions, and as generous as CVXPY's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from implicitdsl.analysis import Bounds, Context
from implicitdsl.analysis.curvature import Curvatures
from implicitdsl.functions import TABLE
from implicitdsl.ground.facts import Curvature
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr, Role, num, sym
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program

N = Dim.of(3)
x, y = (sym(name, Role.UNKNOWN, (N,)) for name in "xy")  # y ≥ 0
s = sym("s", Role.GIVEN, ())
w = sym("w", Role.GIVEN, (N,))  # w ≥ 0
A = sym("A", Role.PARAM, (N, N))
Q = sym("Q", Role.PARAM, (N, N))  # Q ⪰ 0
SYMBOLS = (x, y, s, w, A, Q)
SETS = {
    s: SetInfo("R", (), (), "R"),
    w: SetInfo("nonneg", (), (N,), "nonneg^3"),
    y: SetInfo("nonneg", (), (N,), "nonneg^3"),
    A: SetInfo("R", (), (N, N), "R^(3, 3)"),
    Q: SetInfo("PSD", (), (N, N), "PSD(3)"),
}


def rules() -> Curvatures:
    return Curvatures(frozenset((x, y)), Bounds(Context(TABLE, SETS)))


def call(name: str) -> Callable[[Expr], Expr]:
    return lambda e: TABLE[name].build([e])


ATOMS: dict[str, tuple[Callable[[Expr], Expr], Callable[[Any], Any]]] = {
    "exp": (call("exp"), cp.exp),
    "abs": (call("abs"), cp.abs),
    "relu": (call("relu"), cp.pos),
    "softplus": (call("softplus"), cp.logistic),
    "log": (call("log"), cp.log),
    "sqrt": (call("sqrt"), cp.sqrt),
    "square": (lambda e: build.power(e, num(2.0)), cp.square),
    "neg": (build.neg, lambda e: -e),
    "half": (lambda e: build.mul(num(0.5), e), lambda e: 0.5 * e),
    "minus_two": (lambda e: build.mul(num(-2.0), e), lambda e: -2.0 * e),
    "weighted": (lambda e: build.mul(w, e), lambda e: cp.multiply(W, e)),
    "rotated": (lambda e: build.matmul(A, e), lambda e: MATRIX @ e),
    "sum": (lambda e: build.fill(build.total(e), (N,)), lambda e: cp.sum(e) * np.ones(3)),
    "max": (lambda e: build.fill(TABLE["max"].build([e]), (N,)), lambda e: cp.max(e) * np.ones(3)),
    "min": (lambda e: build.fill(TABLE["min"].build([e]), (N,)), lambda e: cp.min(e) * np.ones(3)),
    "norm": (lambda e: build.fill(TABLE["norm"].build([e]), (N,)), lambda e: cp.norm(e) * np.ones(3)),
    "norm_1": (lambda e: build.fill(TABLE["norm_1"].build([e]), (N,)), lambda e: cp.norm1(e) * np.ones(3)),
    "logsumexp": (lambda e: build.fill(TABLE["logsumexp"].build([e]), (N,)), lambda e: cp.log_sum_exp(e) * np.ones(3)),
    "form": (
        lambda e: build.fill(build.matmul(e, build.matmul(Q, e)), (N,)),
        lambda e: cp.quad_form(e, FORM, assume_PSD=True) * np.ones(3),
    ),
    "entropy": (lambda e: build.mul(e, TABLE["log"].build([e])), lambda e: -cp.entr(e)),
    "add": (lambda e: e, lambda e: e),  # of two, below
    "maximum": (lambda e: e, lambda e: e),
    "times": (lambda e: e, lambda e: e),
}
W = np.array([0.5, 1.0, 2.0])
MATRIX = np.array([[0.3, -1.1, 0.5], [0.8, 0.2, -0.4], [-0.6, 0.9, 0.7]])
FORM = MATRIX.T @ MATRIX + np.eye(3)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Expr, Any]:
    """An expression and the same in CVXPY: two to seven operations on earlier ones."""
    u, v = cp.Variable(3), cp.Variable(3, nonneg=True)
    found: list[tuple[Expr, Any]] = [(x, u), (y, v), (w, cp.Constant(W))]
    for _ in range(draw(st.integers(2, 7))):
        mine, theirs = draw(st.sampled_from(found[-3:]))
        name = draw(st.sampled_from(sorted(ATOMS)))
        if name in ("add", "maximum", "times"):
            other, second = draw(st.sampled_from(found[-4:]))
            if name == "add":
                found.append((build.add(mine, other), theirs + second))
            elif name == "maximum":
                found.append((TABLE["max"].build([mine, other]), cp.maximum(theirs, second)))
            elif theirs.is_constant() or second.is_constant():
                found.append((build.mul(mine, other), cp.multiply(theirs, second)))
            continue
        if name == "form" and not theirs.is_affine():
            continue
        make, twin = ATOMS[name]
        found.append((make(mine), twin(theirs)))
    return found[-1]


def points(count: int) -> list[dict[Expr, Tensor]]:
    g = torch.Generator().manual_seed(7)
    found: list[dict[Expr, Tensor]] = []
    for k in range(count):
        scale = 10.0 ** (k % 3 - 1)
        found.append(
            {
                x: scale * torch.randn(3, dtype=torch.float64, generator=g),
                y: scale * torch.rand(3, dtype=torch.float64, generator=g),
            }
        )
    return found


POINTS = points(24)
FIXED = {s: torch.tensor(0.4), w: torch.tensor(W), A: torch.tensor(MATRIX), Q: torch.tensor(FORM)}


def refuted(e: Expr, curvature: Curvature) -> bool:
    """Whether e breaks Jensen's inequality, f(½a + ½b) ≤ ½f(a) + ½f(b), between two points of its domain."""
    f = Program("jensen", generate("f", SYMBOLS, [e], TABLE, {}))["f"]

    def value(at: dict[Expr, Tensor]) -> Tensor:
        given = at | FIXED
        return f(*(given[symbol].double() for symbol in SYMBOLS))

    for a, b in zip(POINTS[::2], POINTS[1::2], strict=True):
        for t in (0.5, 0.1):
            between = {k: t * a[k] + (1 - t) * b[k] for k in (x, y)}
            ends, middle = t * value(a) + (1 - t) * value(b), value(between)
            known = ends.isfinite() & middle.isfinite()
            gap = (middle - ends)[known]
            room = 1e-7 * (1 + value(a).abs() + value(b).abs())[known]
            if curvature in (Curvature.CONVEX, Curvature.AFFINE) and bool((gap > room).any()):
                return True
            if curvature in (Curvature.CONCAVE, Curvature.AFFINE) and bool((gap < -room).any()):
                return True
    return False


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(pairs())
def test_what_is_accepted_satisfies_jensen(pair: tuple[Expr, Any]) -> None:
    e, _ = pair
    found = rules().of(e)
    if found not in (Curvature.UNKNOWN, Curvature.CONSTANT):
        assert not refuted(e, found)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(pairs())
def test_what_cvxpy_accepts_is_accepted(pair: tuple[Expr, Any]) -> None:
    e, twin = pair
    mine = rules()
    if twin.is_constant() or twin.size == 0:
        return
    if twin.is_convex():
        assert mine.is_convex(e)
    if twin.is_concave():
        assert mine.is_concave(e)


LOG, EXP, SQRT = call("log"), call("exp"), call("sqrt")
T = build.add(build.total(y), num(0.5))  # an affine number > 0
Y1 = build.add(y, build.ones((N,)))
TOGETHER: dict[str, tuple[Expr, str]] = {
    "y exp(x / y)": (build.mul(y, EXP(build.div(x, y))), "convex"),
    "y log(w / y)": (build.mul(y, LOG(build.div(w, y))), "concave"),
    "y log(1 + w / y)": (build.mul(y, LOG(build.add(build.ones((N,)), build.div(w, y)))), "concave"),
    "y log(1 - x / y)": (build.mul(y, LOG(build.sub(build.ones((N,)), build.div(x, y)))), "concave"),
    "y sqrt(1 + (x / y)^2)": (
        build.mul(y, SQRT(build.add(build.ones((N,)), build.power(build.div(x, y), num(2.0))))),
        "unknown",
    ),
    "t logsumexp(x / t)": (build.mul(T, TABLE["logsumexp"].build([build.div(x, T)])), "convex"),
    "t sin(x / t)": (build.mul(T, TABLE["sin"].build([build.div(x, T)])), "unknown"),
    "y (A (x / y))": (build.mul(y, EXP(build.matmul(A, build.div(x, y)))), "unknown"),
    "x exp(x / x + y)": (build.mul(x, EXP(build.div(y, x))), "unknown"),
    "sqrt(y (y + 1))": (SQRT(build.mul(y, build.add(y, build.ones((N,))))), "concave"),
    "sqrt(y sqrt(y))": (SQRT(build.mul(y, SQRT(y))), "concave"),
    "sqrt(y exp(y))": (SQRT(build.mul(y, EXP(y))), "unknown"),
    "(y² (y + 1))^(1/3)": (
        build.power(build.mul(build.power(y, num(2.0)), build.add(y, build.ones((N,)))), num(1 / 3)),
        "concave",
    ),
    "(y (y + 1))^0.6": (build.power(build.mul(y, build.add(y, build.ones((N,)))), num(0.6)), "unknown"),
    "prod(y)^(1/n)": (build.power(TABLE["prod"].build([y]), build.div(num(1.0), build.dimension(N))), "concave"),
    "prod(y)^(1/2)": (build.power(TABLE["prod"].build([y]), num(0.5)), "unknown"),
    "exp(mean(log(y)))": (EXP(TABLE["mean"].build([LOG(y)])), "concave"),
    "log(w / y)": (LOG(build.div(w, y)), "convex"),
    "(Σ |x|³)^(1/3)": (build.power(build.total(build.power(call("abs")(x), num(3.0))), num(1 / 3)), "convex"),
    "(Σ x⁴)^(1/4)": (build.power(build.total(build.power(x, num(4.0))), num(0.25)), "convex"),
    "(Σ x⁴)^(1/2)": (build.power(build.total(build.power(x, num(4.0))), num(0.5)), "convex"),
    "(Σ x⁴)^0.2": (build.power(build.total(build.power(x, num(4.0))), num(0.2)), "unknown"),
    "(Σ y³)^(1/4)": (build.power(build.total(build.power(y, num(3.0))), num(0.25)), "unknown"),
    "(Σ √y)²": (build.power(build.total(SQRT(y)), num(2.0)), "concave"),
    "(Σ √y)^2.1": (build.power(build.total(SQRT(y)), num(2.1)), "unknown"),
    "1 / Σ w / y": (build.div(num(1.0), build.total(build.div(w, y))), "concave"),
    "1 / Σ w / x": (build.div(num(1.0), build.total(build.div(w, x))), "unknown"),
    "1 / Σ w y": (build.div(num(1.0), build.total(build.mul(w, y))), "convex"),
    "y^0.3 (y + 1)^0.7": (build.mul(build.power(y, num(0.3)), build.power(Y1, num(0.7))), "concave"),
    "y^0.3 (y + 1)^0.8": (build.mul(build.power(y, num(0.3)), build.power(Y1, num(0.8))), "unknown"),
    "-w y^0.3 (y + 1)^0.7": (
        build.mul(build.neg(w), build.mul(build.power(y, num(0.3)), build.power(Y1, num(0.7)))),
        "convex",
    ),
    "s y^0.3 (y + 1)^0.7": (
        build.mul(s, build.mul(build.power(y, num(0.3)), build.power(Y1, num(0.7)))),
        "unknown",
    ),
    "y^-1 (y + 1)^-0.5": (build.mul(build.power(y, num(-1.0)), build.power(Y1, num(-0.5))), "convex"),
    "|x|³ / y²": (build.div(build.power(call("abs")(x), num(3.0)), build.power(y, num(2.0))), "convex"),
    "|x|^2.5 / y²": (build.div(build.power(call("abs")(x), num(2.5)), build.power(y, num(2.0))), "unknown"),
    "x³ / y²": (build.div(build.power(x, num(3.0)), build.power(y, num(2.0))), "unknown"),
    "Σ x⁴ / t³": (build.div(build.total(build.power(x, num(4.0))), build.power(T, num(3.0))), "convex"),
    "Σ x⁴ / t^3.5": (build.div(build.total(build.power(x, num(4.0))), build.power(T, num(3.5))), "unknown"),
    "x·x / (y (y + 1))^(1/2)": (
        build.div(build.power(x, num(2.0)), build.power(build.mul(y, Y1), num(0.5))),
        "convex",
    ),
    "exp(y)² / y": (build.div(build.power(EXP(y), num(2.0)), y), "convex"),
    "y log(2 y / w)": (build.mul(y, LOG(build.div(build.mul(num(2.0), y), w))), "convex"),
    "y log(s y / (y + 1))": (build.mul(y, LOG(build.div(build.mul(s, y), Y1))), "unknown"),
    "x log(x / A w)": (build.mul(x, LOG(build.div(x, build.matmul(A, w)))), "unknown"),
    "y log(y / A w)": (build.mul(y, LOG(build.div(y, build.matmul(A, w)))), "convex"),
}


@pytest.mark.parametrize("name", list(TOGETHER))
def test_several_arguments_together(name: str) -> None:
    """Perspectives, geometric means and p-norms; what is accepted satisfies Jensen's inequality."""
    e, expected = TOGETHER[name]
    assert rules().of(e).value == expected
    if expected != "unknown":
        assert not refuted(e, Curvature(expected))


@pytest.mark.parametrize(
    "e, expected",
    [
        (build.inner(x, x), "convex"),
        (build.mul(num(-2.0), build.inner(x, x)), "concave"),
        (build.matmul(x, build.matmul(Q, x)), "convex"),
        (build.matmul(x, build.matmul(A, x)), "unknown"),
        (build.matmul(x, build.matmul(build.matmul(build.transpose(A), A), x)), "convex"),
        (build.matmul(x, build.mul(w, x)), "convex"),
        (build.matmul(build.mul(build.power(s, num(2.0)), x), build.matmul(Q, x)), "convex"),
        (build.matmul(build.neg(x), build.matmul(Q, build.mul(num(3.0), x))), "concave"),
        (build.matmul(build.mul(s, x), build.matmul(Q, x)), "unknown"),
        (build.mul(s, TABLE["exp"].build([x])), "unknown"),
        (build.mul(build.power(s, num(2.0)), TABLE["exp"].build([x])), "convex"),
        (build.power(x, num(3.0)), "unknown"),
        (build.power(y, num(3.0)), "convex"),
        (build.power(y, num(0.5)), "concave"),
        (build.div(num(1.0), y), "convex"),
        (build.div(num(1.0), x), "unknown"),
        (build.div(build.power(x, num(2.0)), y), "convex"),
        (build.mul(x, y), "unknown"),
        (build.mul(y, TABLE["log"].build([build.div(y, w)])), "convex"),
        (TABLE["tanh"].build([x]), "unknown"),
        (TABLE["sin"].build([w]), "constant"),
    ],
)
def test_known_cases(e: Expr, expected: str) -> None:
    assert rules().of(e).value == expected
