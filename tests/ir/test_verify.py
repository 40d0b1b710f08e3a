"""The verifier refuses every kind of broken node."""

from __future__ import annotations

import pytest

from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.nodes import Expr, Role, node, num, sym
from implicitdsl.ir.verify import IllFormed, verify

N, M = Dim.of("n"), Dim.of("m")
x, u = sym("x", Role.GIVEN, (N,)), sym("u", Role.GIVEN, (M,))
W = sym("W", Role.PARAM, (N, N))
at0 = (build.at_item(0),)


@pytest.mark.parametrize(
    "broken",
    [
        node("add", (x, u), (), (N,)),
        node("add", (x,), (), (N,)),
        node("neg", (x,), (), (M,)),
        node("matmul", (W, u), (), (N,)),
        node("matmul", (W, x), (), (M,)),
        node("outer", (W, x), (), (N, N, N)),
        node("transpose", (x,), (), (N,)),
        node("index", (x,), (at0,), (N,)),
        node("index", (x,), ((*at0, *at0),), ()),
        node("embed", (x,), (at0,), (N,)),
        node("sum", (x,), (), (N,)),
        node("diag", (W,), (), (N, N)),
        node("diagonal", (x,), (), (N,)),
        node("concat", (x, W), (), (N + N,)),
        node("stack", (x, u), (), (Dim.of(2), N)),
        node("reshape", (x,), (), (M,)),
        node("zeros", (), (), ()),
        node("eye", (), (), (N, M)),
        node("num", (), ("1",), ()),
        node("sym", (), ("x",), (N,)),
        node("sum_for", (x,), ("i", ZERO, Dim.of("i")), (N,)),
        node("stack_for", (x,), ("i", ZERO, M), (N, M)),
        node("apply_jvp", (x, u), ("f", 0), (N,)),
        node("apply_vjp", (x, u), ("f", 0, 3), (N,)),
        node("grad", (num(1.0), x, u), (), (N,)),
        node("call", (x,), ("tanh",), (M,)),
        node("call", (x, u), ("maximum",), (N,)),
        node("call", (x,), ("no_such",), (N,)),
        node("call", (x,), ("sum",), ()),
        node("nonsense", (x,), (), (N,)),
    ],
    ids=lambda e: e.op,
)
def test_refused(broken: Expr) -> None:
    with pytest.raises(IllFormed):
        verify(broken, TABLE)
    with pytest.raises(IllFormed):
        verify(node("neg", (broken,), (), broken.shape), TABLE)  # inside, too


def test_accepted() -> None:
    verify(build.add(build.matmul(W, TABLE["tanh"].build([x])), x), TABLE)
    verify(TABLE["norm_F"].build([W]), TABLE)
    verify(build.apply_vjp("f", (x, u), x, 1), TABLE)
