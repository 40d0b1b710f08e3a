"""The syntax tree: one class a construct, 1:1 with what was written (parentheses and aliases of operators kept).

Every node has a span. Meaning (kinds, shapes, families) is decided later, by `check`.
"""

from __future__ import annotations

from typing import TypeAlias

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span


@dataclass(frozen=True, slots=True)
class Node:
    """Anything that was written at `span`."""

    span: Span


@dataclass(frozen=True, slots=True)
class Ident(Node):
    """A name where it is declared or referred to outside expressions."""

    text: str


# -- expressions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name(Node):
    """`z`; also differentials `dz`, `dt`, `dW`, which only `check` tells from names."""

    text: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """`2`, `0.5`, `1e-3`."""

    text: str

    @property
    def value(self) -> float:
        return float(self.text)

    @property
    def is_integer(self) -> bool:
        return self.text.isdigit()


@dataclass(frozen=True, slots=True)
class String(Node):
    """`"deq.imp"`, only in imports and `fn … as`; and as an option's value. `text` is without quotes."""

    text: str


@dataclass(frozen=True, slots=True)
class Paren(Node):
    """`(e)`."""

    inner: Expr


@dataclass(frozen=True, slots=True)
class Negate(Node):
    """`-e`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`left op right`. `op` is canonical: `+ - * / @ ^` or `juxt` for juxtaposition; `∘ ⊙ .* ⋅ ./` are mapped.

    `op_span` covers the operator as written (empty for juxtaposition). `x²` is `^` with a Number exponent.
    """

    op: str
    left: Expr
    right: Expr
    op_span: Span


@dataclass(frozen=True, slots=True)
class Transpose(Node):
    """`e^T`, `eᵀ`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`f(args)`, with `(` adjacent to `func`. `func` is a Name, a Derivative (`dq/dt(0)`) or another Call."""

    func: Expr
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Node):
    """`body for i in n for j in 1:m`, as the only argument of a call such as `sum`."""

    body: Expr
    binders: tuple[Binder, ...]


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """`lo:hi` in an index or a binder's range; either end may be missing."""

    lo: Expr | None
    hi: Expr | None


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`e[i, 1:n, :]`."""

    operand: Expr
    items: tuple[Expr | Slice, ...]


@dataclass(frozen=True, slots=True)
class Norm(Node):
    """`||e||`, `||e||_1`, `||e||_inf`, `||A||_F` (`kind` "2" when unmarked, "1", "inf", "F")."""

    operand: Expr
    kind: str


@dataclass(frozen=True, slots=True)
class Abs(Node):
    """`|e|`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """`[a, b, c]`; a matrix is a Literal of Literals."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Derivative(Node):
    """Tight `dz/dt`, `d²q/dt²`, `∂u/∂x`, `∂²u/∂x²` of an unknown by a bound variable."""

    unknown: str
    order: int
    variable: str
    partial: bool


Expr: TypeAlias = (
    Name
    | Number
    | String
    | Paren
    | Negate
    | Binary
    | Transpose
    | Call
    | Comprehension
    | Index
    | Norm
    | Abs
    | Literal
    | Derivative
)


@dataclass(frozen=True, slots=True)
class Binder(Node):
    """`for i in n` or `for i in 1:n` of a comprehension or a constraint list."""

    name: Ident
    range: Expr | Slice


# -- sets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NamedSet(Node):
    """`R`, `positive`, `PSD(n)`, `SpectralBall(n, 0.9)`, `grid(0, 1, N, periodic)`. ℝ is `R`."""

    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Interval(Node):
    """`(a, b)` (closed false) or `[a, b]` (closed true)."""

    lo: Expr
    hi: Expr
    closed: bool


@dataclass(frozen=True, slots=True)
class PowerSet(Node):
    """`R^n`, `R^(m, n)`, `[0, 1]^n`: `dims` are dimension expressions."""

    base: NamedSet | Interval
    dims: tuple[Expr, ...]


SetExpr: TypeAlias = NamedSet | Interval | PowerSet


@dataclass(frozen=True, slots=True)
class FnType(Node):
    """`(R^n, R) -> R^n`, `R^n -> R^m`."""

    domain: tuple[SetExpr, ...]
    codomain: SetExpr


# -- relations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Relation(Node):
    """`label: e0 op0 e1 op1 e2 … for i in n`; ops are `=` (also `==`), `<=`, `>=`, `>>` (⪰), `<<` (⪯)."""

    label: Ident | None
    terms: tuple[Expr, ...]
    ops: tuple[str, ...]
    binders: tuple[Binder, ...]


@dataclass(frozen=True, slots=True)
class Membership(Node):
    """`label: z in simplex(n) for …` as a constraint."""

    label: Ident | None
    element: Expr
    set: SetExpr
    binders: tuple[Binder, ...]


Constraint: TypeAlias = Relation | Membership


# -- sections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declaration(Node):
    """`W in SpectralBall(n, 0.9) = eye`: a given (no initial value), param or const."""

    name: Ident
    set: SetExpr | None
    init: Expr | None


@dataclass(frozen=True, slots=True)
class Given(Node):
    """`given x in R^n, ts in R^k`."""

    items: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class Param(Node):
    """`param W in S = init`."""

    items: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class Const(Node):
    """`const lam in R = 0.1`."""

    items: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class FnDeclaration(Node):
    """`f: (R^n, R) -> R^n as "pkg.mod:Class"`."""

    name: Ident
    type: FnType | None
    path: String | None


@dataclass(frozen=True, slots=True)
class Fn(Node):
    """`fn f: …, g: …`."""

    items: tuple[FnDeclaration, ...]


@dataclass(frozen=True, slots=True)
class LetDeclaration(Node):
    """`enc = Deq(n, m)`."""

    name: Ident
    layer: Ident
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let enc = Deq(n, m)`."""

    items: tuple[LetDeclaration, ...]


@dataclass(frozen=True, slots=True)
class Definition(Node):
    """`Q = L L^T` (params None) or `H(q, p) = …`."""

    name: Ident
    params: tuple[Ident, ...] | None
    body: Expr


@dataclass(frozen=True, slots=True)
class Where(Node):
    """`where a = …; H(q, p) = …`."""

    items: tuple[Definition, ...]


@dataclass(frozen=True, slots=True)
class Unknown(Node):
    """`z`, `z in R^n`, `z(t) in R^n`, `u(x, t) in R`. `args` are the independent variables."""

    name: Ident
    args: tuple[Ident, ...]
    set: SetExpr | None


@dataclass(frozen=True, slots=True)
class Domain(Node):
    """`for t in [0, 1]`, `for x in grid(0, 1, N, periodic)` of a find block."""

    name: Ident
    set: SetExpr


@dataclass(frozen=True, slots=True)
class Find(Node):
    """`find z(t) in R^n for t in [0, 1] until q <= 0 or p >= 1 such that …`.

    `bare` marks a `find` that was not written: the relations stand alone in a bare text (`dz/dt = f(z, t)`).
    """

    unknowns: tuple[Unknown, ...]
    domains: tuple[Domain, ...]
    until: tuple[Relation, ...]
    relations: tuple[Constraint, ...]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Argmin(Node):
    """`argmin_{z in S} objective subject to …`; `sense` is "min" or "max"."""

    sense: str
    unknowns: tuple[Unknown, ...]
    objective: Expr
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`depth=5` (key given) or a positional argument of a slot's value."""

    key: Ident | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Slot(Node):
    """One slot of `using`.

    `label` is "forward" (also when unlabelled), "backward", "start" or "on_failure". For forward/backward, `name` is
    the method and `options` its arguments. For start and on_failure, `name` is None and `value` the expression.
    """

    label: str
    name: Ident | None
    options: tuple[Option, ...]
    value: Expr | None


@dataclass(frozen=True, slots=True)
class Using(Node):
    """`using anderson(depth=5), backward gmres, start zeros, on_failure=raise`."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Output(Node):
    """`z`, `y = C z`, `dual(ineq)`, `z(1)` of a return."""

    alias: Ident | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Node):
    """`return z, y = C z`."""

    items: tuple[Output, ...]


Section: TypeAlias = Given | Param | Const | Fn | Let | Where | Find | Argmin | Using | Return


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import Deq, Other from "deq.imp"`."""

    names: tuple[Ident, ...]
    path: String


@dataclass(frozen=True, slots=True)
class Layer(Node):
    """`layer Name(dims…):` and its sections. A bare text is one Layer with `name` None.

    `broken` is true when error recovery dropped something: names may then be missing through no fault of their use.
    """

    name: Ident | None
    dims: tuple[Ident, ...]
    sections: tuple[Section, ...]
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Comment(Node):
    """`# …` with its text."""

    text: str


@dataclass(frozen=True, slots=True)
class Program(Node):
    """A file."""

    imports: tuple[Import, ...]
    layers: tuple[Layer, ...]
    comments: tuple[Comment, ...] = ()
