"""Expressions as printed mathematics: one walk, and a `Notation` for each way of writing.

Levels say how tightly a text binds: a sum, an elementwise product `a ∘ b`, a product `A b`, a power or sign, an atom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from implicitdsl.ir import build
from implicitdsl.ir.build import Item
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr, Role, walk

SUM, HADAMARD, PRODUCT, POWER, ATOM = range(5)


class Printed(NamedTuple):
    """A text and its level; `negative` marks a text that begins with the sign of a term."""

    text: str
    level: int = ATOM
    negative: bool = False


class Notation(ABC):
    """How the parts are written."""

    hadamard: str
    times: str  # between factors of a product
    comma: str = ", "

    @abstractmethod
    def symbol(self, name: str, role: Role) -> str: ...

    @abstractmethod
    def number(self, value: float) -> Printed: ...

    @abstractmethod
    def dim(self, value: Dim) -> str: ...

    @abstractmethod
    def parens(self, text: str) -> str: ...

    @abstractmethod
    def function(self, name: str) -> str: ...

    @abstractmethod
    def power(self, base: str, exponent: Printed) -> str: ...

    @abstractmethod
    def transpose(self, text: str) -> str: ...

    @abstractmethod
    def quotient(self, top: Printed, bottom: Printed) -> Printed: ...

    @abstractmethod
    def norm(self, text: str, kind: str) -> str: ...

    @abstractmethod
    def indicator(self, text: str) -> str:
        """1 where the text is positive, else 0."""

    @abstractmethod
    def index(self, text: str, items: str) -> str: ...

    @abstractmethod
    def loop(self, summed: bool, body: Printed, name: str, lo: str, hi: str) -> Printed: ...

    @abstractmethod
    def array(self, rows: Sequence[str]) -> str: ...

    @abstractmethod
    def derivative(self, text: str, order: int, variable: str) -> Printed: ...

    @abstractmethod
    def operator(self, name: str, variable: str) -> str:
        """grad, jac, divergence and hess by a variable."""

    @abstractmethod
    def pulled(self, function: str, variable: str, arguments: str, cotangent: str) -> Printed:
        """(∂f/∂x)(args)ᵀ g."""

    @abstractmethod
    def fixed(self, name: str) -> str:
        """`I`, `1` and `0` as matrices and vectors."""

    def within(self, p: Printed, level: int) -> str:
        """With parentheses where p binds less tightly."""
        return p.text if p.level >= level else self.parens(p.text)


def write(e: Expr, notation: Notation) -> str:
    """The text of an expression."""
    return _Writer(notation).of(e).text


class _Writer:
    def __init__(self, notation: Notation) -> None:
        self.n = notation
        self.memo: dict[Expr, Printed] = {}

    def of(self, e: Expr) -> Printed:
        if e not in self.memo:
            for part in walk(e):  # arguments first: a long sum must not exhaust the stack
                if part not in self.memo:
                    self.memo[part] = self.make(part)
        return self.memo[e]

    def at(self, e: Expr, level: int) -> str:
        return self.n.within(self.of(e), level)

    def column(self, e: Expr, level: int) -> str:
        """A vector as a column; xᵀ A is a row."""
        return self.n.transpose(self.n.parens(self.of(e).text)) if _is_row(e) else self.at(e, level)

    def row(self, e: Expr) -> str:
        return self.at(e, PRODUCT) if _is_row(e) else self.n.transpose(self.at(e, ATOM))

    def listed(self, args: Sequence[Expr]) -> str:
        return self.n.comma.join(self.of(a).text for a in args)

    def make(self, e: Expr) -> Printed:
        n = self.n
        match e.op:
            case "sym":
                return Printed(n.symbol(e.name, e.role))
            case "num":
                return n.number(e.number or 0.0)
            case "dim":
                return Printed(n.dim(build.as_dim(e) or Dim(())), SUM)
            case "zeros" | "ones" | "eye":
                return Printed(n.fixed({"zeros": "0", "ones": "1", "eye": "I"}[e.op]))
            case "neg":
                return Printed("-" + self.at(e.args[0], HADAMARD), SUM, negative=True)
            case "add":
                return self.sum(e)
            case "mul":
                return self.product(e)
            case "div":
                return n.quotient(self.of(e.args[0]), self.of(e.args[1]))
            case "pow":
                return Printed(n.power(self.at(e.args[0], ATOM), self.of(e.args[1])), POWER)
            case "matmul":
                return self.matmul(e)
            case "outer":
                x, y = e.args
                left = self.column(x, PRODUCT)
                right = self.of(y).text if _is_row(y) else n.transpose(self.at(y, ATOM))
                return Printed(self.beside(left, right), PRODUCT)
            case "transpose":
                return Printed(n.transpose(self.at(e.args[0], ATOM)), POWER)
            case "sum":
                inner = e.args[0]
                if inner.op == "diagonal":
                    return Printed(n.function("tr") + n.parens(self.of(inner.args[0]).text))
                return Printed(n.function("sum") + n.parens(self.of(inner).text))
            case "index":
                return Printed(n.index(self.at(e.args[0], ATOM), self.items(build.items_of(e))))
            case "embed":
                place = n.index("", self.items(build.items_of(e)))
                return Printed(n.function("embed") + n.parens(self.of(e.args[0]).text + n.comma + place))
            case "stack" | "concat":
                return Printed(n.array([self.of(a).text for a in e.args]))
            case "sum_for" | "stack_for":
                name, lo, hi = build.binder_of(e)
                last = hi - Dim.of(1)
                return n.loop(e.op == "sum_for", self.of(e.args[0]), name.split("~")[0], n.dim(lo), n.dim(last))
            case "call":
                return self.call(e)
            case "apply_vjp":
                return self.pulled(e)
            case "at":
                point = n.parens(self.listed(e.args[1:]))
                return Printed(self.at(e.args[0], ATOM) + point)
            case "deriv":
                order, variable = e.attrs
                return n.derivative(self.of(e.args[0]).text, int(str(order)), str(variable))
            case "dual":
                return Printed(n.function("dual") + n.parens(str(e.attrs[0])))
            case "grad" | "jac" | "divergence" | "hess":
                body, bound, point = e.args
                inside = n.parens(self.of(body).text)
                place = "" if bound.name.split("~")[0] == self.of(point).text else f"({self.of(point).text})"
                return Printed(n.operator(e.op, n.symbol(bound.name, bound.role)) + inside + place, POWER)
            case _:
                head = str(e.attrs[0]) if e.op == "apply" else e.op
                return Printed(n.function(head) + n.parens(self.listed(e.args)))

    def sum(self, e: Expr) -> Printed:
        left, right = self.of(e.args[0]), self.of(e.args[1])
        if right.negative:
            return Printed(f"{left.text} - {right.text[1:]}", SUM, left.negative)
        return Printed(f"{left.text} + {right.text}", SUM, left.negative)

    def product(self, e: Expr) -> Printed:
        """s A for a scalar s, a ∘ b of equal shapes."""
        x, y = e.args
        if x.rank and y.rank:
            return Printed(f"{self.at(x, HADAMARD)}{self.n.hadamard}{self.at(y, HADAMARD)}", HADAMARD)
        if x.rank and not y.rank:
            x, y = y, x
        left = self.of(x)
        if left.negative and left.level >= PRODUCT:
            return Printed(self.beside(left.text, self.at(y, PRODUCT)), SUM, negative=True)
        if x.number is not None and y.number is not None:
            return Printed(f"{self.at(x, PRODUCT)} · {self.at(y, PRODUCT)}", PRODUCT)
        level = min(self.of(y).level, PRODUCT) if y.op == "mul" else PRODUCT  # s (a ∘ b) = s a ∘ b
        return Printed(self.beside(self.at(x, PRODUCT), self.at(y, max(level, HADAMARD))), max(level, HADAMARD))

    def matmul(self, e: Expr) -> Printed:
        x, y = e.args
        left = self.row(x) if x.rank == 1 else self.at(x, PRODUCT)
        return Printed(self.beside(left, self.column(y, PRODUCT)), PRODUCT)

    def beside(self, left: str, right: str) -> str:
        tight = right.startswith("(") and left.endswith("ᵀ")
        return left + ("" if tight else self.n.times) + right

    def call(self, e: Expr) -> Printed:
        n, name = self.n, e.name
        if name in ("norm", "norm_1", "norm_inf", "abs"):
            return Printed(n.norm(self.of(e.args[0]).text, name))
        if name == "inv":
            return Printed(n.power(self.at(e.args[0], ATOM), Printed("-1")), POWER)
        if name in ("heaviside", "half_step"):
            return Printed(n.indicator(self.of(e.args[0]).text))
        if name == "reciprocal_or_zero":
            return n.quotient(Printed("1"), self.of(e.args[0]))
        if name in ("scale_rows", "scale_columns"):
            d, A = e.args if name == "scale_rows" else e.args[::-1]
            diagonal = n.function("diag") + n.parens(self.of(d).text)
            factors = (diagonal, self.at(A, PRODUCT)) if name == "scale_rows" else (self.at(A, PRODUCT), diagonal)
            return Printed(self.beside(*factors), PRODUCT)
        shown = {"maximum": "max", "minimum": "min", "max_all": "max", "min_all": "min"}.get(name, name)
        return Printed(n.function(shown) + n.parens(self.listed(e.args)))

    def pulled(self, e: Expr) -> Printed:
        *points, cotangent = e.args
        which = e.attrs[2]
        assert isinstance(which, int)
        point = points[which]
        variable = self.n.symbol(point.name, point.role) if point.op == "sym" else str(which + 1)
        return self.n.pulled(str(e.attrs[0]), variable, self.listed(points), self.at(cotangent, POWER))

    def items(self, items: Sequence[Item]) -> str:
        parts = [self.n.dim(i[1]) if len(i) == 2 else f"{self.n.dim(i[1])}:{self.n.dim(i[2])}" for i in items]
        return self.n.comma.join(parts)


def _is_row(e: Expr) -> bool:
    return e.rank == 1 and e.op == "matmul" and e.args[0].rank == 1
