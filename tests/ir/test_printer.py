"""Expressions print as the mathematics they are."""

from __future__ import annotations

import pytest

from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.build import (
    add,
    at_item,
    call,
    diag,
    div,
    eye,
    index,
    matmul,
    mul,
    neg,
    outer,
    power,
    sub,
    transpose,
)
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.dump import dump
from implicitdsl.ir.nodes import Expr, Role, num, sym
from implicitdsl.ir.printer import show

N, M = Dim.of("n"), Dim.of("m")
x, z, a = (sym(name, Role.GIVEN, (N,)) for name in "xza")
W, Q = sym("W", Role.PARAM, (N, N)), sym("Q", Role.PARAM, (N, N))
s, v = sym("s", Role.GIVEN), sym("v~3", Role.BOUND, (N,))
i = Dim.of("i~7")


def tanh(e: Expr) -> Expr:
    return TABLE["tanh"].build([e])


@pytest.mark.parametrize(
    "e, text",
    [
        (tanh(add(matmul(W, z), x)), "tanh(W z + x)"),
        (matmul(transpose(W), x), "W^T x"),
        (matmul(diag(sub(num(1), power(a, num(2)))), W), "diag(1 - a^2) W"),
        (sub(eye(N), matmul(diag(sub(num(1), power(a, num(2)))), W)), "I - diag(1 - a^2) W"),
        (mul(num(0.5), matmul(matmul(z, Q), z)), "1/2 z^T Q z"),
        (mul(z, matmul(W, x)), "z * (W x)"),
        (mul(matmul(W, x), z), "W x * z"),
        (matmul(W, mul(x, z)), "W (x * z)"),
        (matmul(matmul(W, Q), x), "W Q x"),
        (matmul(W, matmul(Q, x)), "W Q x"),
        (matmul(add(W, Q), x), "(W + Q) x"),
        (matmul(matmul(W, x), z), "(W x)^T z"),
        (matmul(x, W), "W^T x"),
        (matmul(matmul(matmul(x, W), Q), z), "x^T W Q z"),
        (outer(x, matmul(z, W)), "x z^T W"),
        (outer(matmul(W, x), z), "W x z^T"),
        (mul(s, div(x, z)), "s x / z"),
        (div(x, mul(s, z)), "x / (s z)"),
        (mul(s, add(x, z)), "s (x + z)"),
        (neg(add(x, z)), "-(x + z)"),
        (sub(x, add(x, z)), "x - (x + z)"),
        (add(x, add(z, a)), "x + z + a"),
        (power(neg(x), num(0.5)), "(-x)^0.5"),
        (power(power(x, num(2)), num(3)), "(x^2)^3"),
        (power(x, num(-1)), "x^-1"),
        (mul(num(0.1), x), "0.1 x"),
        (mul(num(1 / 3), x), "1/3 x"),
        (mul(num(-2), x), "-2 x"),
        (add(z, mul(num(-2), x)), "z - 2 x"),
        (TABLE["norm"].build([sub(x, z)]), "||x - z||"),
        (TABLE["norm_F"].build([W]), "||W||_F"),
        (TABLE["norm_inf"].build([x]), "||x||_inf"),
        (build.trace(W), "tr(W)"),
        (TABLE["inv"].build([W]), "W^-1"),
        (TABLE["max"].build([x, num(0)]), "max(x, 0)"),
        (TABLE["min"].build([x]), "min(x)"),
        (index(matmul(W, x), (build.slice_item(1, N),)), "(W x)[1:n]"),
        (index(W, (build.slice_item(0, N), at_item(0))), "W[:n, 0]"),
        (build.stack((s, num(1))), "[s, 1]"),
        (build.sum_for(power(index(x, (at_item(i),)), num(2)), "i~7", ZERO, N), "sum(x[i]^2 for i in n)"),
        (build.apply("f", (x, s), (N,)), "f(x, s)"),
        (build.grad(build.total(v), v, x), "grad(sum(v), v = x)"),
        (build.deriv(x, 2, "t"), "d²x/dt²"),
        (build.at(x, (num(0),)), "x(0)"),
        (build.dual("ineq", (N,)), "dual(ineq)"),
        (call("scale_rows", (x, matmul(W, Q)), (N, N)), "diag(x) W Q"),
    ],
)
def test_show(e: Expr, text: str) -> None:
    assert show(e) == text


def test_shared_terms_do_not_explode() -> None:
    e = x
    for _ in range(200):
        e = mul(tanh(e), e)
    assert len(show(e)) < 10_000


def test_dump_shows_sharing() -> None:
    t = tanh(add(matmul(W, z), x))
    assert dump(mul(t, sub(num(1), t))) == (
        "%0 = matmul(W, z): (n)\n"
        "%1 = add(%0, x): (n)\n"
        "%2 = call[tanh](%1): (n)\n"
        "%3 = neg(%2): (n)\n"
        "%4 = add(1, %3): (n)\n"
        "%5 = mul(%2, %4): (n)\n"
        "return %5\n"
    )


def test_dump_shows_items_and_ranges() -> None:
    e = build.sum_for(power(index(x, (at_item(i),)), num(2)), "i~7", ZERO, N)
    assert "index[at i~7](x): ()" in dump(e)
    assert "sum_for[i~7, 0, n]" in dump(e)
