"""Sets: `R^(m, n)`, `SpectralBall(n, 0.9)`, `[0, 1]^n` to shapes and numbers."""

from __future__ import annotations

import math

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.model import SetInfo
from implicitdsl.syntax import ast

from .report import Report, nearest, safe
from .scope import Entity, Scope
from .shapes import Dims
from .trees import unwrap


@dataclass(frozen=True, slots=True)
class SetRule:
    """A named set: how many dimensions it takes, its shape in terms of them, and its numbers (name, default or
    None).
    """

    dims: int
    matrix: tuple[int, ...]  # which dimension each axis has
    numbers: tuple[tuple[str, float | None], ...] = ()


SETS: dict[str, SetRule] = {
    "R": SetRule(0, ()),
    "positive": SetRule(0, ()),
    "nonneg": SetRule(0, ()),
    "simplex": SetRule(1, (0,)),
    "ball": SetRule(1, (0,), (("radius", 1.0),)),
    "sphere": SetRule(1, (0,)),
    "PSD": SetRule(1, (0, 0)),
    "PD": SetRule(1, (0, 0)),
    "Sym": SetRule(1, (0, 0)),
    "Skew": SetRule(1, (0, 0)),
    "Orth": SetRule(1, (0, 0)),
    "Stiefel": SetRule(2, (0, 1)),
    "SpectralBall": SetRule(1, (0, 0), (("radius", None),)),
    "Monotone": SetRule(1, (0, 0), (("margin", None),)),
}
PLAIN = ("R", "positive", "nonneg", "open", "closed")


@dataclass
class SetReader:
    """Resolves set expressions of one layer. In a bare text unknown names in dimensions become dimensions."""

    report: Report
    scope: Scope
    dims: Dims
    implicit: bool  # may dimensions be introduced by use?
    new_dims: list[str]

    def read(self, expr: ast.SetExpr) -> SetInfo | None:
        """The set, or None after an error."""
        if isinstance(expr, ast.PowerSet):
            base = self.read(expr.base)
            axes = [self.dim(d) for d in expr.dims]
            if base is None or any(a is None for a in axes):
                return None
            if base.name not in PLAIN:
                self.report.add(
                    "IMP206",
                    f"a power of `{base.text}` is no set of tensors",
                    expr.span,
                    help="powers are for R, positive, nonneg and intervals; of an unknown of `argmin_`, the constraint "
                    f"`X[i] in {base.text} for i in k` says it of every row",
                )
                return None
            shape = tuple(a for a in axes if a is not None)
            return SetInfo(base.name, base.args, shape, f"{base.text}^{self._power(shape)}")
        if isinstance(expr, ast.Interval):
            lo, hi = self.number(expr.lo), self.number(expr.hi)
            if lo is None or hi is None:
                return None
            if not lo < hi:
                self.report.add("IMP107", f"the interval from {lo:g} to {hi:g} is empty", expr.span)
                return None
            text = f"[{lo:g}, {hi:g}]" if expr.closed else f"({lo:g}, {hi:g})"
            if hi == math.inf and lo in (0.0, -math.inf):  # a set with a name
                return SetInfo("R" if lo else "nonneg" if expr.closed else "positive", (), (), text)
            return SetInfo("closed" if expr.closed else "open", (lo, hi), (), text)
        return self._named(expr)

    @staticmethod
    def _power(shape: Shape) -> str:
        text = str(shape[0])
        return (
            text
            if len(shape) == 1 and (text.isalnum() or text.startswith("?"))
            else "(" + ", ".join(map(str, shape)) + ")"
        )

    def _named(self, expr: ast.NamedSet) -> SetInfo | None:
        rule = SETS.get(expr.name)
        if rule is None:
            close = nearest(expr.name, list(SETS))
            name_span = Span(expr.span.start, expr.span.start + len(expr.name))
            self.report.add(
                "IMP101",
                f"unknown set `{expr.name}`",
                name_span,
                help=f"did you mean `{close}`?"
                if close
                else "sets are " + ", ".join(SETS) + ", (a, b), [a, b] and powers such as R^n",
                fixes=(safe(f"did you mean `{close}`?", (name_span, close)),) if close else (),
            )
            return None
        least = rule.dims + sum(default is None for _, default in rule.numbers)
        most = rule.dims + len(rule.numbers)
        if not least <= len(expr.args) <= most:
            words = ["a dimension"] * rule.dims + [f"a {name}" for name, _ in rule.numbers]
            wants = f"takes {', '.join(words)}" if words else "takes no arguments"
            self.report.add("IMP112", f"`{expr.name}` {wants}; {len(expr.args)} given", expr.span)
            return None
        axes = [self.dim(a) for a in expr.args[: rule.dims]]
        numbers = [self.number(a) for a in expr.args[rule.dims :]]
        if any(a is None for a in axes) or any(v is None for v in numbers):
            return None
        values = [v for v in numbers if v is not None]
        values += [d for _, d in rule.numbers[len(numbers) :] if d is not None]
        for (name, _), value in zip(rule.numbers, values, strict=True):
            if value <= 0 or (name == "margin" and value > 1):
                self.report.add(
                    "IMP107",
                    f"the {name} of `{expr.name}` must be {'in (0, 1]' if name == 'margin' else 'positive'}; it "
                    f"is {value:g}",
                    expr.span,
                )
                return None
        found = [a for a in axes if a is not None]
        text = expr.name + (
            "(" + ", ".join([str(d) for d in found] + [f"{v:g}" for v in values]) + ")" if found else ""
        )
        return SetInfo(expr.name, tuple(values), tuple(found[i] for i in rule.matrix), text)

    def number(self, expr: ast.Expr) -> float | None:
        """A literal number with sign, `1/2`, `2 * 3`."""
        value = literal(expr)
        if value is None:
            self.report.add(
                "IMP704",
                f"`{self.report.source.at(expr.span)}` must be a number here",
                expr.span,
                help="sets take numbers; what an unknown of `argmin_` is bounded by is a constraint, `a <= z <= b` or "
                "`||z|| <= r`",
            )
        return value

    def dim(self, expr: ast.Expr) -> Dim | None:
        """A dimension: an integer polynomial in dimension names and bound indices."""
        expr = unwrap(expr)
        if isinstance(expr, ast.Number):
            if not expr.is_integer:
                dots = expr.text.startswith(".") or expr.text.endswith(".")  # 1..n
                help = "a range is written with a colon and without its end: `0:n`, or `n` alone" if dots else None
                self.report.add("IMP205", f"a dimension must be a whole number, not {expr.text}", expr.span, help=help)
                return None
            return Dim.of(int(expr.text))
        if isinstance(expr, ast.Name):
            return self._dim_name(expr)
        if isinstance(expr, ast.Negate):
            inner = self.dim(expr.operand)
            return None if inner is None else Dim.of(0) - inner
        if isinstance(expr, ast.Binary) and expr.op in ("+", "-", "*", "juxt", "@"):
            a, b = self.dim(expr.left), self.dim(expr.right)
            if a is None or b is None:
                return None
            return a + b if expr.op == "+" else a - b if expr.op == "-" else a * b
        if (
            isinstance(expr, ast.Binary)
            and expr.op == "^"
            and isinstance(expr.right, ast.Number)
            and expr.right.is_integer
        ):
            base = self.dim(expr.left)
            power = Dim.of(1)
            for _ in range(min(int(expr.right.text), 8)):
                power = power * base if base is not None else power
            return None if base is None else power
        self.report.add(
            "IMP205",
            f"`{self.report.source.at(expr.span)}` is no dimension",
            expr.span,
            help="dimensions are whole numbers, names and their sums and products, `2 n + 1`",
        )
        return None

    def _dim_name(self, expr: ast.Name) -> Dim | None:
        entity = self.scope.find(expr.text)
        if entity is None:
            if self.implicit:
                self.scope_root().names[expr.text] = Entity("dim", expr.text, expr.span)
                self.dims.introduced[expr.text] = expr.span
                self.new_dims.append(expr.text)
                return Dim.of(expr.text)
            known = [e.name for e in self.scope_root().entities("dim")]
            close = nearest(expr.text, known)
            self.report.add(
                "IMP101",
                f"unknown dimension `{expr.text}`",
                expr.span,
                help=(f"did you mean `{close}`, or " if close else "")
                + f"add it to the header: `layer …({', '.join([*known, expr.text])}):`",
            )
            # introduced all the same, so that one slip is one error
            self.scope_root().names[expr.text] = Entity("dim", expr.text, expr.span, undeclared=True)
            self.dims.introduced[expr.text] = expr.span
            return Dim.of(expr.text)
        if entity.kind in ("dim", "index"):
            return Dim.of(entity.node.name if entity.node is not None else entity.name)
        self.report.add(
            "IMP113",
            f"`{expr.text}` is {entity.described}, not a dimension",
            expr.span,
            labels=((entity.span, f"`{expr.text}` declared here"),),
        )
        return None

    def scope_root(self) -> Scope:
        scope = self.scope
        while scope.outer is not None:
            scope = scope.outer
        return scope


def literal(expr: ast.Expr) -> float | None:
    """The value of a constant arithmetic expression, or None."""
    expr = unwrap(expr)
    if isinstance(expr, ast.Number):
        return expr.value
    if isinstance(expr, ast.Name) and expr.text in ("inf", "∞"):
        return float("inf")
    if isinstance(expr, ast.Name) and expr.text in ("pi", "π"):
        return 3.141592653589793
    if isinstance(expr, ast.Negate):
        inner = literal(expr.operand)
        return None if inner is None else -inner
    if isinstance(expr, ast.Binary):
        a, b = literal(expr.left), literal(expr.right)
        if a is None or b is None:
            return None
        try:
            if expr.op == "+":
                return a + b
            if expr.op == "-":
                return a - b
            if expr.op == "/":
                return a / b
            if expr.op == "^":
                power = a**b
                return float(power) if isinstance(power, (int, float)) else None
            return a * b
        except (ZeroDivisionError, OverflowError):
            return None
    return None
