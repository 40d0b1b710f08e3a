"""Smart constructors: what they simplify, what they keep, what they refuse."""

from __future__ import annotations

import pickle

import pytest

from implicitdsl.ir.build import (
    add,
    at_item,
    concat,
    diag,
    diagonal,
    dimension,
    div,
    embed,
    eye,
    fill,
    free_names,
    index,
    index_value,
    matmul,
    mul,
    neg,
    ones,
    outer,
    power,
    reshape,
    scale_columns,
    scale_rows,
    slice_item,
    stack,
    stack_for,
    sub,
    sum_for,
    total,
    trace,
    transpose,
    zeros,
)
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.nodes import Role, num, sym
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace

N, M, i = Dim.of("n"), Dim.of("m"), Dim.of("i")
x, y, u = sym("x", Role.GIVEN, (N,)), sym("y", Role.GIVEN, (N,)), sym("u", Role.GIVEN, (M,))
A, B, Q = sym("A", Role.PARAM, (N, N)), sym("B", Role.PARAM, (N, N)), sym("Q", Role.PARAM, (M, N))
s, t = sym("s", Role.GIVEN), sym("t", Role.GIVEN)


@pytest.mark.parametrize(
    "made, expected",
    [
        (add(x, zeros((N,))), x),
        (add(num(0), x), x),
        (add(zeros((N,)), s), mul(s, ones((N,)))),
        (sub(x, x), zeros((N,))),
        (add(x, x), mul(num(2), x)),
        (sub(mul(num(3), x), x), mul(num(2), x)),
        (mul(num(0), x), zeros((N,))),
        (mul(x, num(1)), x),
        (mul(x, ones((N,))), x),
        (mul(num(-1), x), neg(x)),
        (mul(neg(x), neg(y)), mul(x, y)),
        (mul(num(2), mul(num(3), x)), mul(num(6), x)),
        (mul(x, s), mul(s, x)),
        (mul(fill(s, (N,)), x), mul(s, x)),
        (neg(neg(x)), x),
        (neg(sub(x, y)), sub(y, x)),
        (div(x, num(1)), x),
        (div(zeros((N,)), s), zeros((N,))),
        (power(x, num(1)), x),
        (power(x, num(0)), ones((N,))),
        (add(num(2), num(3)), num(5)),
        (power(num(2), num(3)), num(8)),
        (mul(num(2), dimension(N)), dimension(N + N)),
        (add(dimension(N), num(1)), dimension(N + Dim.of(1))),
        (transpose(transpose(Q)), Q),
        (transpose(diag(x)), diag(x)),
        (transpose(outer(x, u)), outer(u, x)),
        (matmul(eye(N), x), x),
        (matmul(A, zeros((N,))), zeros((N,))),
        (matmul(diag(x), y), mul(x, y)),
        (matmul(diag(x), A), scale_rows(x, A)),
        (matmul(A, diag(x)), scale_columns(A, x)),
        (matmul(outer(x, u), u), mul(matmul(u, u), x)),
        (matmul(neg(A), x), neg(matmul(A, x))),
        (matmul(matmul(x, A), y), matmul(x, matmul(A, y))),
        (matmul(x, transpose(A)), matmul(A, x)),
        (matmul(ones((N,)), x), total(x)),
        (scale_rows(x, eye(N)), diag(x)),
        (scale_rows(ones((N,)), A), A),
        (transpose(scale_rows(x, A)), scale_columns(transpose(A), x)),
        (diag(ones((N,))), eye(N)),
        (diagonal(diag(x)), x),
        (diagonal(scale_rows(x, A)), mul(x, diagonal(A))),
        (diagonal(add(A, diag(x))), add(diagonal(A), x)),
        (trace(matmul(A, B)), total(mul(A, transpose(B)))),
        (trace(scale_rows(x, A)), matmul(x, diagonal(A))),
        (trace(eye(N)), dimension(N)),
        (index(stack((x, y)), (at_item(1),)), y),
        (index(concat((x, u)), (slice_item(N, N + M),)), u),
        (index(x, (slice_item(0, N),)), x),
        (index(index(x, (slice_item(2, N),)), (at_item(1),)), index(x, (at_item(3),))),
        (index(embed(s, (at_item(i),), (N,)), (at_item(i),)), s),
        (embed(zeros((M,)), (slice_item(0, M),), (N,)), zeros((N,))),
        (reshape(reshape(Q, (M * N,)), (M, N)), Q),
        (total(neg(x)), neg(total(x))),
        (total(ones((N,))), dimension(N)),
        (stack((num(0), num(0))), zeros((Dim.of(2),))),
        (stack_for(index(x, (at_item(i),)), "i", ZERO, N), x),
        (sum_for(s, "i", ZERO, N), mul(dimension(N), s)),
        (sum_for(embed(index(x, (at_item(i),)), (at_item(i),), (N,)), "i", ZERO, N), x),
        (sum_for(mul(s, index(x, (at_item(i),))), "i", ZERO, Dim.of(1)), mul(s, index(x, (at_item(0),)))),
        (stack_for(embed(index(x, (at_item(i),)), (at_item(i),), (N,)), "i", ZERO, N), diag(x)),
    ],
)
def test_simplified(made: object, expected: object) -> None:
    assert made is expected, (made, expected)


def test_nothing_is_folded_to_a_wrong_number() -> None:
    assert div(num(1), num(0)).op == "div"
    assert power(num(0), num(-1)).op == "pow"
    assert power(num(-1), num(0.5)).op == "pow"
    assert power(num(1e300), num(2)).op == "pow"
    assert div(x, x).op == "div"


def test_equal_structure_is_one_object_and_survives_pickle() -> None:
    e = add(matmul(A, x), mul(s, y))
    assert e is add(matmul(A, x), mul(s, y))
    assert pickle.loads(pickle.dumps(e)) is e


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: add(x, u),
        lambda: mul(A, x),
        lambda: matmul(A, u),
        lambda: matmul(s, x),
        lambda: outer(A, x),
        lambda: diag(A),
        lambda: diagonal(Q),
        lambda: stack((x, u)),
        lambda: concat((A, x)),
        lambda: reshape(x, (M,)),
        lambda: embed(x, (slice_item(0, M),), (N,)),
        lambda: index(x, (at_item(0), at_item(0))),
        lambda: fill(x, (N,)),
    ],
)
def test_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(AssertionError):
        wrong()


def test_free_names_and_capture() -> None:
    body = mul(index(x, (at_item(i),)), index(y, (at_item(Dim.of("j")),)))
    loop = sum_for(body, "i", ZERO, N)
    assert free_names(loop) >= {"j", "n"}
    assert "i" not in free_names(loop)
    moved = index_value(loop, "j", i)  # the free i must not be caught by the loop's own
    assert "i" in free_names(moved)
    assert show(moved) == "sum(x[i_1] y[i] for i_1 in n)"


def test_replacement_avoids_capture() -> None:
    """A value that holds a free index goes into a loop over an index of the same name."""
    loop = sum_for(power(add(index(x, (at_item(i),)), s), num(2)), "i", ZERO, N)
    inside = replace(loop, {s: index(y, (at_item(i),))})
    assert show(inside) == "sum((x[i_1] + y[i])^2 for i_1 in n)"
