"""What a later computation needs of an earlier one: the largest costly parts, of no higher rank, as symbols."""

from __future__ import annotations

from implicitdsl.calculus import shared
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Role, sym

N = Dim.of("n")
Z, U = sym("z", Role.UNKNOWN, (N,)), sym("u", Role.COTANGENT, (N,))
W = sym("W", Role.PARAM, (N, N))
A = build.call("tanh", (build.matmul(W, Z),), (N,))
SLOPE = build.sub(build.num(1.0), build.power(A, build.num(2.0)))


def test_the_largest_costly_part_is_a_symbol() -> None:
    rate = build.add(A, Z)
    (pull,), kept = shared([build.mul(U, SLOPE)], [rate], [Z], "k")
    ((symbol, part),) = kept
    assert part is A
    assert symbol.role is Role.HOISTED
    assert pull is build.mul(U, build.sub(build.num(1.0), build.power(symbol, build.num(2.0))))


def test_what_is_cheap_or_fixed_or_a_matrix_is_not_kept() -> None:
    square, fixed = build.mul(Z, Z), build.matmul(W, sym("x", Role.GIVEN, (N,)))
    table = build.call("exp", (build.outer(Z, Z),), (N, N))
    rate = build.add(build.add(square, fixed), build.matmul(table, Z))
    asked = [build.mul(U, square), build.mul(U, fixed), build.matmul(table, U)]
    assert shared(asked, [rate], [Z], "k") == (tuple(asked), ())
