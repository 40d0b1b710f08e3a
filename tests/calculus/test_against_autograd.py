"""Random well-typed expressions: every pass against torch's autograd, and well-formed after each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from random_expressions import CHECKED, LEAVES, OPAQUES, SIZES, M, N, Sample, W, s, samples, values_of, z
from reference_evaluator import evaluate
from torch import Tensor

from implicitdsl.calculus import (
    dense_jacobian,
    divergence,
    expand,
    gradient,
    hoist,
    inline,
    jacobian,
    linearize,
    simplify,
    vjp,
)
from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, Role, num, sym, symbols
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace
from implicitdsl.ir.verify import verify


def value(e: Expr, values: dict[Expr, Tensor]) -> Tensor:
    verify(e, TABLE)
    return evaluate(e, values, SIZES, OPAQUES)


def function(e: Expr, wrt: tuple[Expr, ...], values: dict[Expr, Tensor]) -> Callable[..., Tensor]:
    return lambda *args: evaluate(e, {**values, **dict(zip(wrt, args, strict=True))}, SIZES, OPAQUES)


def close(a: Tensor, b: Tensor, e: Expr) -> None:
    assert a.shape == b.shape
    scale = 1 + float(b.abs().max()) if b.numel() else 1.0
    assert float((a - b).abs().max() if a.numel() else 0.0) <= 1e-10 * scale, (show(e), a, b)


@CHECKED
@given(samples())
def test_linearize(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    tangents = tuple(sym("t" + leaf.name, Role.TANGENT, leaf.shape) for leaf in LEAVES)
    directions = values_of(sample.seed + 1, tangents)
    ours = value(linearize(e, dict(zip(LEAVES, tangents, strict=True)), TABLE), values | directions)
    points = tuple(values[leaf] for leaf in LEAVES)
    theirs = torch.func.jvp(function(e, LEAVES, values), points, tuple(directions[t] for t in tangents))[1]
    close(ours, theirs, e)


@CHECKED
@given(samples())
def test_vjp(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    g = sym("g", Role.COTANGENT, e.shape)
    values = values_of(sample.seed, (*LEAVES, g))
    points = tuple(values[leaf] for leaf in LEAVES)
    theirs = torch.func.vjp(function(e, LEAVES, values), *points)[1](values[g])
    for ours, expected in zip(vjp(e, g, LEAVES, TABLE), theirs, strict=True):
        close(value(ours, values), expected, e)


@CHECKED
@given(samples((), (N,), (M,), (M, N)), st.sampled_from(LEAVES))
def test_jacobian(sample: Sample, by: Expr) -> None:
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    theirs = torch.func.jacfwd(function(e, (by,), values))(values[by])
    close(value(dense_jacobian(e, by, TABLE), values), theirs, e)
    closed = jacobian(e, by, TABLE)
    if closed is not None:
        close(value(closed, values), theirs, e)


@CHECKED
@given(samples(()))
def test_hessian_is_the_derivative_of_the_gradient(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    bound = sym("v~1", Role.BOUND, (N,))
    hessian = expand(build.hess(replace(e, {z: bound}), bound, z), TABLE)
    close(value(hessian, values), torch.func.hessian(function(e, (z,), values))(values[z]), e)


@CHECKED
@given(samples((N,)))
def test_divergence(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    theirs = torch.func.jacfwd(function(e, (z,), values))(values[z]).trace()
    close(value(divergence(e, z, TABLE), values), theirs, e)


@CHECKED
@given(samples((), opaque=False))
def test_gradient_of_a_gradient(sample: Sample) -> None:
    """∇ ||∇e||² by every leaf: third-order structure through the reverse sweep twice."""
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    first = gradient(e, z, TABLE)
    squared = build.matmul(first, first)

    def loss(*args: Tensor) -> Tensor:
        return (torch.func.grad(function(e, LEAVES, values))(*args) ** 2).sum()

    points = tuple(values[leaf] for leaf in LEAVES)
    theirs = torch.func.grad(loss, argnums=tuple(range(len(LEAVES))))(*points)
    for ours, expected in zip(vjp(squared, num(1.0), LEAVES, TABLE), theirs, strict=True):
        close(value(ours, values), expected, e)


@CHECKED
@given(samples())
def test_simplify_and_hoist_keep_values(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    expected = value(e, values)
    close(value(simplify(e), values), expected, e)
    (rest,), parts = hoist([e], [z, s])
    for name, part in parts:
        assert symbols(part).isdisjoint({z, s})
        values[name] = value(part, values)
    close(value(rest, values), expected, e)
    assert not symbols(rest) - {z, s, *LEAVES} - {name for name, _ in parts}


@CHECKED
@given(samples((N,)))
def test_operators_expand_where_they_stand(sample: Sample) -> None:
    """grad, jac and div inside an expression, at a point that is not the symbol itself."""
    e = inline(sample.expr, sample.definitions)
    values = values_of(sample.seed)
    bound = sym("v~2", Role.BOUND, (N,))
    body = replace(e, {z: bound})
    point = build.matmul(W, z)
    whole = build.add(
        build.matmul(build.jac(body, bound, point), z), build.mul(build.divergence(body, bound, point), z)
    )
    J = torch.func.jacfwd(function(e, (z,), values))(values[W] @ values[z])
    close(value(expand(whole, TABLE), values), J @ values[z] + J.trace() * values[z], e)
