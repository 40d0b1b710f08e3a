"""What a function of the language must say about itself. The functions are in `functions/`, one file a function or tiny kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness

from .dims import Shape
from .nodes import Expr


class TypeRuleError(Exception):
    """A type rule's refusal: code, message, and the index of the argument at fault (None: the call)."""

    def __init__(self, code: str, message: str, argument: int | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.argument, self.help = code, message, argument, help


@dataclass(frozen=True)
class Function:
    """A function: type rule, torch spelling, derivative and facts. Immutable and torch-free.

    `shape(args)` gives the result's shape from the arguments' shapes or raises TypeRuleError.
    `elementwise`: the result has the (one non-scalar) shape of the arguments; `shape` may then be None.
    `torch` is the spelling: a format string over `{0}`, `{1}`, … for elementwise functions ("torch.tanh({0})");
    for others a name in `lowering.ops` called as `ops.NAME(args…)`, which knows the core ranks of its arguments.
    `jvp(call, tangents)` is the directional derivative as an expression that is linear in the tangents, built with `ir.build`
    from the call node, its arguments and the tangents (None for an argument that does not vary).
    Facts: `range` of the values given nothing about the arguments, `lipschitz` (elementwise: sup |f'|; None unbounded),
    `smoothness`, `curvature` and `monotone` per argument (elementwise scalar sense).
    """

    name: str
    arity: tuple[int, int | None]
    torch: str
    jvp: Callable[[Expr, Sequence[Expr | None]], Expr]
    elementwise: bool = False
    shape: Callable[[Sequence[Shape]], Shape] | None = None
    range: Interval = Interval()
    lipschitz: float | None = None
    smoothness: Smoothness = Smoothness.SMOOTH
    curvature: Curvature = Curvature.UNKNOWN
    monotone: Monotone = Monotone.UNKNOWN
    internal: bool = False  # only produced by derivatives, not a name users can write
    latex: str | None = None  # e.g. r"\tanh", default \operatorname{name}
