"""diag, concat, stack, reshape, I, zeros and ones: functions that arrange numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from implicitdsl.ground.facts import Curvature
from implicitdsl.ir import build
from implicitdsl.ir.dims import ONE, ZERO, Dim, Shape, show_shape, size_of
from implicitdsl.ir.function import Function, TypeRuleError
from implicitdsl.ir.nodes import Expr

from .common import size, square


def _diag_shape(shapes: Sequence[Shape]) -> Shape:
    (shape,) = shapes
    if len(shape) == 1:
        return shape + shape
    return square("diag", shapes)[:1]


def _diag(args: Sequence[Expr]) -> Expr:
    return build.diag(args[0]) if args[0].rank == 1 else build.diagonal(args[0])


def _concat_shape(shapes: Sequence[Shape]) -> Shape:
    tail = next((s[1:] for s in shapes if s), ())
    length = ZERO
    for k, shape in enumerate(shapes):
        if shape[1:] != tail or (not shape and tail):
            listed = ", ".join(map(show_shape, shapes))
            raise TypeRuleError("IMP201", f"`concat` joins along the first axis; the rest differs: {listed}", k)
        length = length + (shape[0] if shape else ONE)
    return (length, *tail)


def _stack_shape(shapes: Sequence[Shape]) -> Shape:
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            message = f"`stack` needs equal shapes, got {show_shape(shapes[0])} and {show_shape(shape)}"
            raise TypeRuleError("IMP201", message, k)
    return (Dim.of(len(shapes)), *shapes[0])


def _sizes(name: str, args: Sequence[Expr], start: int = 0) -> Shape:
    return tuple(size(name, a, k) for k, a in enumerate(args) if k >= start)


def _reshape_shape(args: Sequence[Expr]) -> Shape:
    shape = _sizes("reshape", args, 1)
    if size_of(shape) != size_of(args[0].shape):
        message = f"`reshape` of {show_shape(args[0].shape)} to {show_shape(shape)}: the number of elements differs"
        raise TypeRuleError("IMP201", message, 0)
    return shape


def _constant(name: str) -> Callable[[Sequence[Expr]], Shape]:
    return lambda args: _sizes(name, args)


DIAG = Function("diag", (1, 1), shape=_diag_shape, builder=_diag, curvature=Curvature.AFFINE)
"""The diagonal matrix of a vector; the diagonal of a square matrix."""

CONCAT = Function("concat", (1, None), shape=_concat_shape, builder=build.concat, curvature=Curvature.AFFINE)
"""Vectors end to end (a scalar counts as one element), matrices one above the other."""

STACK = Function("stack", (1, None), shape=_stack_shape, builder=build.stack, curvature=Curvature.AFFINE)
"""Scalars as a vector, vectors as the rows of a matrix."""

RESHAPE = Function(
    "reshape",
    (2, None),
    typing=_reshape_shape,
    builder=lambda args: build.reshape(args[0], _sizes("reshape", args, 1)),
    curvature=Curvature.AFFINE,
)
"""`reshape(x, m, n)`: the same elements, row by row."""

I = Function(  # noqa: E741 - the identity matrix has no other name
    "I",
    (1, 1),
    typing=lambda args: (size("I", args[0], 0),) * 2,
    builder=lambda args: build.eye(size("I", args[0], 0)),
    curvature=Curvature.CONSTANT,
)
"""`I(n)`: the identity matrix."""

ZEROS = Function(
    "zeros",
    (1, None),
    typing=_constant("zeros"),
    builder=lambda args: build.zeros(_sizes("zeros", args)),
    curvature=Curvature.CONSTANT,
)
"""`zeros(n)`, `zeros(m, n)`."""

ONES = Function(
    "ones",
    (1, None),
    typing=_constant("ones"),
    builder=lambda args: build.ones(_sizes("ones", args)),
    curvature=Curvature.CONSTANT,
)
"""`ones(n)`, `ones(m, n)`."""
