"""A checked layer: symbols, definitions, blocks and outputs over one DAG. Immutable, torch-free, picklable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

from .dims import Dim, Shape
from .nodes import Expr

NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A set with resolved arguments. `name` is "R", "positive", "nonneg", "open" ((a, b)), "closed" ([a, b]),
    "simplex", "ball", "sphere", "PSD", "PD", "Sym", "Skew", "Orth", "Stiefel", "SpectralBall", "Monotone"; `args` are
    its numbers after the dimensions (bounds, radius, rate, margin); `shape` is the whole shape of an element."""

    name: str
    args: tuple[float, ...]
    shape: Shape
    text: str  # as printed, `SpectralBall(n, 0.9)`


@dataclass(frozen=True, slots=True)
class Init:
    """An initial value: `kind` is "default", "zeros", "ones", "eye", "normal" (mean, std), "uniform" (lo, hi) or
    "literal"."""

    kind: str
    args: tuple[float, ...] = ()
    literal: tuple[object, ...] | float | None = None  # nested tuples of floats


@dataclass(frozen=True, slots=True)
class Symbol:
    """A given, param, const or unknown."""

    name: str
    node: Expr
    set: SetInfo
    init: Init = Init("default")
    span: Span | None = None
    filled: bool = False  # a default of a bare text

    @property
    def shape(self) -> Shape:
        return self.node.shape


@dataclass(frozen=True, slots=True)
class Opaque:
    """A `fn` or a sub-layer of `let`: argument shapes, result shapes, and where it comes from.

    `path` is `pkg.mod:Class`; `layer` the sub-layer's model with `sizes`, its dimensions in terms of ours.
    """

    name: str
    args: tuple[Shape, ...]
    results: tuple[Shape, ...]
    path: str | None = None
    layer: Model | None = None
    sizes: tuple[tuple[str, Dim], ...] = ()
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """An index `text` into an axis that symbolic dimensions leave open: it fits where `rest` is not negative."""

    text: str
    axis: Dim
    rest: Dim
    span: Span


@dataclass(frozen=True, slots=True)
class Equation:
    """`lhs op rhs`, op one of = <= >= >> << in; `index` are enclosing binders (name, lo, hi) of a constraint list.

    For op "in", `rhs` is lhs and `set` is given. Chains are split: `0 <= z <= 1` gives two with the same label.
    """

    lhs: Expr
    op: str
    rhs: Expr
    span: Span
    label: str | None = None
    index: tuple[tuple[str, Dim, Dim], ...] = ()
    set: SetInfo | None = None


@dataclass(frozen=True, slots=True)
class Domain:
    """An independent variable's range: an interval with end points, or a grid."""

    name: str
    node: Expr
    lo: Expr
    hi: Expr
    points: Dim | None = None  # of a grid
    periodic: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """One slot of `using`: method name and options, with spans for messages. Values are numbers, words, and `Expr`."""

    method: str
    values: tuple[tuple[str, object], ...] = ()
    span: Span | None = None

    def get(self, key: str, default: object = None) -> object:
        return dict(self.values).get(key, default)

    def mapped(self, change: Callable[[Expr], Expr]) -> Options:
        """With changed expressions."""
        values = tuple((k, change(v) if isinstance(v, Expr) else v) for k, v in self.values)
        return Options(self.method, values, self.span)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `using` asked for; None: the planner decides."""

    forward: Options | None = None
    backward: Options | None = None
    start: Expr | str | None = None
    on_failure: str | None = None

    @property
    def exprs(self) -> tuple[Expr, ...]:
        """Every expression among them."""
        slots = [s for s in (self.forward, self.backward) if s is not None]
        found = [self.start, *(v for s in slots for _, v in s.values)]
        return tuple(e for e in found if isinstance(e, Expr))

    def mapped(self, change: Callable[[Expr], Expr]) -> Wishes:
        """With changed expressions."""
        start = change(self.start) if isinstance(self.start, Expr) else self.start
        forward, backward = (None if s is None else s.mapped(change) for s in (self.forward, self.backward))
        return Wishes(forward, backward, start, self.on_failure)


@dataclass(frozen=True, slots=True)
class Block:
    """One `find` or `argmin`. `sentence` is "root", "ode", "sde", "pde" or "optimum"."""

    sentence: str
    unknowns: tuple[Symbol, ...]
    equations: tuple[Equation, ...]
    span: Span
    objective: Expr | None = None
    sense: str = "min"
    domains: tuple[Domain, ...] = ()
    until: tuple[Equation, ...] = ()
    wishes: Wishes = Wishes()


@dataclass(frozen=True, slots=True)
class OutputValue:
    """A returned value and its (unique) name."""

    name: str
    expr: Expr
    span: Span | None = None


@dataclass(frozen=True)
class Model:
    """A layer. `blocks` are in dependency order; `definitions` are DEFINITION symbols and values, in order of use."""

    name: str | None
    dims: tuple[str, ...]
    givens: tuple[Symbol, ...]
    params: tuple[Symbol, ...]
    consts: tuple[Symbol, ...]
    opaques: tuple[Opaque, ...]
    definitions: tuple[tuple[Expr, Expr], ...]
    blocks: tuple[Block, ...]
    outputs: tuple[OutputValue, ...]
    source: Source = field(repr=False)
    span: Span = NOWHERE
    spans: Mapping[Expr, Span] = field(default_factory=dict[Expr, Span], repr=False, compare=False)  # in this text
    bounds: tuple[Bound, ...] = ()
