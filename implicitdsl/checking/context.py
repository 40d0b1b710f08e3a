"""What elaboration shares over a layer, and the words of its messages."""

from __future__ import annotations

from dataclasses import field

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim, Shape, show_shape
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr
from implicitdsl.syntax import ast

from .report import Report, apart, nearest
from .scope import Entity, Scope, Typed
from .sets import SetReader
from .shapes import Dims, shown
from .trees import descend, unwrap

CONSTANTS = {"pi": 3.141592653589793, "π": 3.141592653589793}


@dataclass
class Context:
    """What elaboration needs everywhere: shared by all expressions of a layer."""

    report: Report
    dims: Dims
    functions: dict[str, Function]
    sets: SetReader
    bare: bool
    broken: bool
    guess: dict[str, int]
    used: set[str] = field(default_factory=set[str])
    undeclared: dict[str, Entity] = field(default_factory=dict[str, Entity])
    checks: list[tuple[Dim, Dim, Span, str, bool]] = field(default_factory=list[tuple[Dim, Dim, Span, str, bool]])
    definitions: dict[str, Typed | None] = field(default_factory=dict[str, Typed | None])
    definition_order: list[tuple[Expr, Expr]] = field(default_factory=list[tuple[Expr, Expr]])
    pending: list[str] = field(default_factory=list[str])
    ranges: dict[str, tuple[Dim, Dim]] = field(default_factory=dict[str, tuple[Dim, Dim]])
    declared_sets: dict[str, Span] = field(default_factory=dict[str, Span])
    layers: frozenset[str] = frozenset()  # those that `let` can name
    incomplete: bool = False  # poison without an error of this layer's own
    # a node's own span is that of the first text in the process in which it was written
    spans: dict[Expr, Span] = field(default_factory=dict[Expr, Span])
    count: int = 0

    def unique(self, stem: str) -> str:
        self.count += 1
        return f"{stem}~{self.count}"


class Wording:
    """Messages about expressions in one scope: their text, shapes, and where dimensions came from."""

    def __init__(self, context: Context, scope: Scope, differentials: dict[str, Expr] | None = None) -> None:
        self.context = context
        self.report = context.report
        self.dims = context.dims
        self.scope = scope
        self.differentials = differentials or {}

    def text(self, expr: ast.Node) -> str:
        return " ".join(self.report.source.at(expr.span).split())

    def shapes_differ(self, where: str, span: Span, left: ast.Expr, a: Typed, right: ast.Expr, b: Typed) -> None:
        """IMP201 with both operands, where their dimensions came from, and how to project."""
        sa, sb = self.dims.shape(a.shape), self.dims.shape(b.shape)
        self.report.add(
            "IMP201",
            f"shapes differ in {where}: {self.show(sa)} and {self.show(sb)}",
            span,
            labels=(*self.introduced(sa, sb), (left.span, ""), (right.span, "")),
            notes=self.provenance(left, right),
            help=self.projection(left, sa, right, sb) or self.glued(left, right),
        )

    def introduced(self, a: Shape, b: Shape) -> list[tuple[Span, str]]:
        """Labels at the header names by which two shapes differ."""
        here = [n for d in a for n in sorted(d.names) if n in self.dims.introduced]
        there = [n for d in b for n in sorted(d.names) if n in self.dims.introduced and n not in here]
        here = [n for n in here if not any(n in d.names for d in b)] or here
        labels = [(self.dims.introduced[n], f"`{n}` introduced here") for n in dict.fromkeys(here)]
        return labels + [(self.dims.introduced[n], f"`{n}` is a different dimension") for n in dict.fromkeys(there)]

    def provenance(self, *operands: ast.Expr) -> list[str]:
        """`W` is a parameter in R^(n, n), declared on line 3 — for every name in the operands."""
        notes: list[str] = []
        for operand in operands:
            for name in dict.fromkeys(n.text for n in descend(operand) if isinstance(n, ast.Name)):
                entity = self.scope.find(name)
                if entity is not None and entity.node is not None and entity.is_tensor:
                    line = self.report.source.position(entity.span.start)[0]
                    shape = self.show(self.dims.shape(entity.node.shape))
                    notes.append(f"`{name}` has shape {shape}: {entity.described}, line {line}")
        return list(dict.fromkeys(notes))

    def projection(self, left: ast.Expr, a: Shape, right: ast.Expr, b: Shape) -> str | None:
        """The usual remedy where an input of another length is added: a matrix in front of it."""
        if len(a) != 1 or len(b) != 1:
            return None
        for mine, other, operand, first in ((a, b, right, False), (b, a, left, True)):
            operand = unwrap(operand)
            if isinstance(operand, ast.Name):
                entity = self.scope.find(operand.text)
                if entity is not None and entity.kind == "given":
                    fresh = next(c for c in "UVABCDEFGHJKLMPQSW" if self.scope.find(c) is None)
                    kept = self.text(right if first else left)
                    text = f"{fresh} {operand.text} + {kept}" if first else f"{kept} + {fresh} {operand.text}"
                    return f"project the input: `{text}` with `param {fresh} in R^{show_shape((mine[0], other[0]))}`"
        return None

    def glued(self, *operands: ast.Expr) -> str | None:
        """In a bare text, for a name such as `Wz` that was taken for a parameter: a capital letter and an unknown."""
        unknowns = [e.name for e in self.context.sets.scope_root().entities("unknown")]
        for name in (n.text for operand in operands for n in descend(operand) if isinstance(n, ast.Name)):
            entity = self.scope.find(name)
            if entity is not None and entity.filled and name[0].isupper():
                product = apart(name, [name[0], *unknowns])
                if product:
                    return f"did you mean `{product}`? a product needs the space"
        return None

    def show(self, shape: Shape) -> str:
        """A shape with `_` for what isn't known yet."""
        parts = map(shown, self.dims.shape(shape))
        return "(" + ", ".join(parts) + ")"


def suggest(name: str, scope: Scope, extra: list[str]) -> str | None:
    """A declared name close to an unknown one."""
    return nearest(name, [*dict.fromkeys(scope.all()), *extra])
