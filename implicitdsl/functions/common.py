"""Helpers shared by the functions: unary elementwise functions, and the usual refusals of type rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness
from implicitdsl.ir.build import as_dim, mul, zeros
from implicitdsl.ir.dims import Dim, Shape, show_shape
from implicitdsl.ir.function import EVERYTHING, Function, TypeRuleError
from implicitdsl.ir.nodes import Expr

Tangents = Sequence[Expr | None]


def unary(
    name: str,
    torch: str,
    derivative: Callable[[Expr, Expr], Expr],
    *,
    range: Interval = EVERYTHING,
    lipschitz: float | None = None,
    smoothness: Smoothness = Smoothness.SMOOTH,
    curvature: Curvature = Curvature.UNKNOWN,
    monotone: Monotone = Monotone.UNKNOWN,
    internal: bool = False,
    latex: str | None = None,
) -> Function:
    """An elementwise function of one argument; `derivative(x, y)` is f'(x), where y is the node f(x)."""

    def jvp(y: Expr, tangents: Tangents) -> Expr:
        (t,) = tangents
        return zeros(y.shape) if t is None else mul(derivative(y.args[0], y), t)

    return Function(
        name,
        (1, 1),
        torch,
        jvp,
        elementwise=True,
        range=range,
        lipschitz=lipschitz,
        smoothness=smoothness,
        curvature=curvature,
        monotone=monotone,
        internal=internal,
        latex=latex,
    )


def vector(name: str, shapes: Sequence[Shape]) -> Shape:
    """The shape of the one argument, which must be a vector."""
    if len(shapes[0]) != 1:
        raise TypeRuleError("IMP206", f"`{name}` needs a vector, got shape {show_shape(shapes[0])}", 0)
    return shapes[0]


def square(name: str, shapes: Sequence[Shape]) -> Shape:
    """The shape of the one argument, which must be a square matrix."""
    shape = shapes[0]
    if len(shape) != 2:
        raise TypeRuleError("IMP206", f"`{name}` needs a square matrix, got shape {show_shape(shape)}", 0)
    if shape[0] != shape[1]:
        raise TypeRuleError("IMP201", f"`{name}` needs a square matrix, got shape {show_shape(shape)}", 0)
    return shape


def scalar_of(shapes: Sequence[Shape]) -> Shape:
    """A reduction of anything to a number."""
    return ()


def size(name: str, e: Expr, k: int) -> Dim:
    """The dimension that argument k stands for."""
    dim = as_dim(e)
    if dim is None or e.rank:
        raise TypeRuleError("IMP203", f"argument {k + 1} of `{name}` must be a dimension", k)
    return dim
