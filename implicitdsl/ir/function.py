"""What a function of the language must say about itself. They are in `functions/`, one file a function or tiny kin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span

from .dims import Shape, show_shape
from .nodes import Expr, node

EVERYTHING = Interval()
NORMS = {"2": "norm", "1": "norm_1", "inf": "norm_inf", "F": "norm_F"}
"""The function that a norm's mark stands for: `||x||_1` is `norm_1(x)`."""


class TypeRuleError(Exception):
    """A type rule's refusal: code, message, and the index of the argument at fault (None: the call)."""

    def __init__(self, code: str, message: str, argument: int | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.argument, self.help = code, message, argument, help


@dataclass(frozen=True)
class Function:
    """A function: type rule, torch spelling, derivative and facts. Immutable and torch-free.

    `shape(args)` gives the result's shape from the arguments' shapes or raises TypeRuleError. `elementwise` functions
    have the (one non-scalar) shape of the arguments and no such rule. Where arguments are dimensions (`I(n)`,
    `reshape(x, m, n)`: `dim` or integral `num` nodes), `typing(args)` reads them. The method `type` is all three.
    `builder(args)` makes the result, of well-typed arguments, from core operations instead of a `call` node (sum,
    diag, I, …).
    `torch` is the spelling: with braces a format string over the arguments `{0}`, `{1}`, … ("torch.tanh({0})"; `ops.`
    in it is `lowering.ops`); without, a name in `lowering.ops` called as `ops.NAME(args…)`, which knows the core
    ranks of its arguments; "", and no `jvp`, where the builder never makes a `call` node of this name.
    `jvp(call, tangents)` is the directional derivative as an expression that is linear in the tangents, built with
    `ir.build` from the call node, its arguments and the tangents (None for an argument that does not vary).
    `transpose(call, i, g)` is the cotangent of argument i of a function that is linear in it (only internal ones).
    Facts: `range` of the values given nothing about the arguments, `lipschitz` (elementwise: sup |f'|, else the
    constant in the Euclidean norm; None: unbounded or not known), `smoothness`, `curvature` and `monotone` in each
    argument.
    """

    name: str
    arity: tuple[int, int | None]
    torch: str = ""
    jvp: Callable[[Expr, Sequence[Expr | None]], Expr] | None = None
    elementwise: bool = False
    shape: Callable[[Sequence[Shape]], Shape] | None = None
    typing: Callable[[Sequence[Expr]], Shape] | None = None
    builder: Callable[[Sequence[Expr]], Expr] | None = None
    transpose: Callable[[Expr, int, Expr], Expr] | None = None
    range: Interval = EVERYTHING
    lipschitz: float | None = None
    smoothness: Smoothness = Smoothness.SMOOTH
    curvature: Curvature = Curvature.UNKNOWN
    monotone: Monotone = Monotone.UNKNOWN
    internal: bool = False  # only produced by derivatives, not a name users can write
    latex: str | None = None  # e.g. r"\tanh", default \operatorname{name}

    def type(self, args: Sequence[Expr]) -> Shape:
        """The shape of `name(args)`. Raises TypeRuleError: IMP112 for the number of arguments, IMP2xx for shapes."""
        least, most = self.arity
        if len(args) < least or (most is not None and len(args) > most):
            raise TypeRuleError("IMP112", f"`{self.name}` takes {_count(least, most)}, got {len(args)}")
        if self.typing is not None:
            return self.typing(args)
        shapes = [a.shape for a in args]
        return self.shape(shapes) if self.shape is not None else elementwise_shape(self.name, shapes)

    def build(self, args: Sequence[Expr], span: Span | None = None) -> Expr:
        """The expression `name(args)`. Raises TypeRuleError as `type` does."""
        shape = self.type(args)
        if self.builder is None:
            return node("call", tuple(args), (self.name,), shape, span)
        result = self.builder(args)
        assert result.shape == shape, f"{self.name}: built {show_shape(result.shape)}, typed {show_shape(shape)}"
        if result.span is None and result not in args:
            result.span = span
        return result


Functions = Mapping[str, Function]
"""Functions by name, as the passes receive them."""


def elementwise_shape(name: str, shapes: Sequence[Shape]) -> Shape:
    """The shape of the result of an elementwise function. Raises TypeRuleError IMP208: only scalars broadcast."""
    result: Shape = ()
    for k, shape in enumerate(shapes):
        if shape and result and shape != result:
            message = (
                f"`{name}` is elementwise, but its arguments have shapes {show_shape(result)} and {show_shape(shape)}"
            )
            raise TypeRuleError("IMP208", message, k)
        result = result or shape
    return result


def _count(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least} argument{'s' * (least != 1)}"
    if least == most:
        return f"{least} argument{'s' * (least != 1)}"
    return f"{least} to {most} arguments"
