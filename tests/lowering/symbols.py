"""Symbols that the tests of this folder share."""

from __future__ import annotations

from implicitdsl.ir import build as b
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr, Role, sym

n, m, N = Dim.of("n"), Dim.of("m"), Dim.of("N")
i, j = Dim.of("i"), Dim.of("j")
ZERO, ONE = Dim.of(0), Dim.of(1)
SIZES = {"n": 4, "m": 3, "N": 5}

z = sym("z", Role.UNKNOWN, (n,))
x = sym("x", Role.GIVEN, (m,))
s = sym("s", Role.GIVEN)
X = sym("X", Role.GIVEN, (N, n))
A = sym("A", Role.GIVEN, (n, n))
W = sym("W", Role.PARAM, (n, n))
U = sym("U", Role.PARAM, (n, m))
bias = sym("b", Role.PARAM, (n,))
u = sym("u", Role.COTANGENT, (n,))


def tanh(e: Expr) -> Expr:
    return b.call("tanh", (e,), e.shape)


def row(a: Expr, *at: Dim) -> Expr:
    return b.index(a, [b.at_item(d) for d in at])
