"""What a name means inside one layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Protocol

from implicitdsl.ground.methods import Family
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.function import Function
from implicitdsl.ir.model import Init, Opaque, SetInfo
from implicitdsl.ir.nodes import Expr
from implicitdsl.syntax import ast


class Language(Protocol):
    """What the checker must know of the language; `implicitdsl.language.LANGUAGE` is one."""

    @property
    def functions(self) -> Sequence[Function]: ...
    @property
    def families(self) -> Sequence[Family]: ...


@dataclass
class Entity:
    """A declared name.

    `kind` is given, param, const, unknown, definition, macro (a definition with arguments), fn, layer, dim, variable
    (time or space), index (a comprehension's), argument (a macro's).
    """

    kind: str
    name: str
    span: Span
    node: Expr | None = None
    set: SetInfo | None = None
    init: Init = field(default_factory=lambda: Init("default"))
    filled: bool = False
    definition: ast.Definition | None = None
    opaque: Opaque | None = None
    range: tuple[Dim, Dim] | None = None  # an index's (lo, hi) as Dim
    arguments: tuple[str, ...] = ()  # an unknown's independent variables
    undeclared: bool = False
    path: str | None = None  # of a fn
    points: Dim | None = None  # of a variable on a grid
    broken: bool = False  # declared with an error

    @property
    def is_tensor(self) -> bool:
        return self.kind in ("given", "param", "const", "unknown", "definition", "variable", "argument")

    @property
    def described(self) -> str:
        """`a parameter in R^(n, n)`."""
        words = {
            "given": "an input",
            "param": "a parameter",
            "const": "a constant",
            "unknown": "an unknown",
            "definition": "a definition",
            "macro": "a definition with arguments",
            "fn": "a function",
            "layer": "a layer",
            "dim": "a dimension",
            "variable": "an independent variable",
            "index": "an index",
            "argument": "an argument of a definition",
        }
        return words[self.kind] + (f" in {self.set.text}" if self.set and not self.filled else "")


@dataclass
class Scope:
    """Names of a layer, with inner scopes for comprehensions and definitions."""

    names: dict[str, Entity] = field(default_factory=dict[str, Entity])
    outer: Scope | None = None

    def find(self, name: str) -> Entity | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None

    def inner(self) -> Scope:
        return Scope({}, self)

    def all(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.outer

    def entities(self, *kinds: str) -> Iterator[Entity]:
        for entity in self.names.values():
            if entity.kind in kinds:
                yield entity


@dataclass(frozen=True)
class Typed:
    """An elaborated expression: its node, and whether it is a row vector (`z^T`), which shapes alone don't tell."""

    expr: Expr
    row: bool = False

    @property
    def shape(self) -> Shape:
        return self.expr.shape

    @property
    def rank(self) -> int:
        return len(self.expr.shape)
