"""The expression DAG: typed, matrix-level, hash-consed. Batch dimensions are never part of a shape.

| op | args | attrs | meaning |
|---|---|---|---|
| sym | | name, Role | a symbol |
| num | | float | a number |
| dim | | Dim | a dimension or bound index used as a number |
| zeros, ones, eye | | | constants of the node's shape |
| neg | a | | -a |
| add, mul, div, pow | a, b | | elementwise; equal shapes, or one is a scalar |
| matmul | a, b | | matrix-matrix, matrix-vector, vector-matrix, or dot of two vectors |
| outer | a, b | | a bᵀ of vectors |
| transpose | A | | of a matrix |
| index | a | items | attrs = (items,): ("at", Dim) / ("slice", lo, hi) for each leading axis; missing axes are whole |
| embed | g | items | the adjoint of index: zeros of the node's shape with g placed at items |
| sum | a | | sum of all elements |
| diag | v | | diagonal matrix of a vector |
| diagonal | A | | diagonal of a square matrix |
| concat | a, b, … | | joined along the first axis (scalars count as length one) |
| stack | a, b, … | | equal shapes joined along a new first axis |
| reshape | a | | to the node's shape |
| call | a, … | function name | a function of the language, see `functions/` |
| sum_for, stack_for | body | index, lo, hi | Σ over / stack over index in [lo, hi) |
| apply | x, … | fn, output | an opaque `fn` or sub-layer; fn may be a derived name, see `ir.binders.OpaqueName` |
| apply_jvp | x…, t… | fn, output | its Jacobian-vector product: as many tangents as arguments |
| apply_vjp | x…, g | fn, output, i | its vector-Jacobian product with respect to argument i |
| grad, jac, divergence, hess | body, bound, point | maybe "hutchinson" | body's derivative by bound, at point |
| deriv | u | order, variable | dᵏu/dtᵏ of an unknown, in relations only |
| at | u, t, … | | an unknown of independent variables at a point |
| dual | | label | a constraint's multiplier, in outputs only |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from typing import Any
from weakref import WeakValueDictionary

from implicitdsl.ground.source import Span

from .dims import ONE, Dim, Shape, show_shape

LINEAR = frozenset(
    (
        "neg",
        "add",
        "transpose",
        "index",
        "embed",
        "sum",
        "diag",
        "diagonal",
        "concat",
        "stack",
        "reshape",
        "sum_for",
        "stack_for",
    )
)
"""Operations that are linear in their one argument, or in all of them together."""


class Role(Enum):
    """What a symbol stands for."""

    GIVEN = "given"
    PARAM = "param"
    CONST = "const"
    UNKNOWN = "unknown"
    VARIABLE = "variable"  # time or space
    DIFFERENTIAL = "differential"  # dz, dt, dW
    DEFINITION = "definition"  # a name of `where`, kept for readable output; `Model.definitions` holds its value
    BOUND = "bound"  # of grad/jac/divergence/hess, of a definition with arguments
    TANGENT = "tangent"
    COTANGENT = "cotangent"
    HOISTED = "hoisted"  # a loop invariant computed before the solve
    PROBE = "probe"  # a vector of random signs, drawn once a solve


class Expr:
    """A node. Equal structure is the same object (hash-consing), so `is`, `==` and dict keys are O(1).

    `span` is where the first such node was written; it is not part of the identity.
    """

    __slots__ = ("__weakref__", "args", "attrs", "op", "shape", "span")

    op: str
    args: tuple[Expr, ...]
    attrs: tuple[Hashable, ...]
    shape: Shape
    span: Span | None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        """A symbol's or a called function's name."""
        return str(self.attrs[0])

    @property
    def role(self) -> Role:
        role = self.attrs[1]
        assert isinstance(role, Role)
        return role

    @property
    def number(self) -> float | None:
        """The value of a `num` node, else None."""
        return self.attrs[0] if self.op == "num" else None  # pyright: ignore[reportReturnType]

    def __repr__(self) -> str:
        head = self.op + ("" if not self.attrs else "[" + ", ".join(map(str, self.attrs)) + "]")
        return f"{head}({', '.join(map(repr, self.args))}): {show_shape(self.shape)}" if self.args else head

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Expr:
        return self

    def __reduce__(self) -> tuple[Callable[..., Expr], tuple[Any, ...]]:
        return node, (self.op, self.args, self.attrs, self.shape, self.span)


_interned: WeakValueDictionary[tuple[Hashable, ...], Expr] = WeakValueDictionary()


def node(
    op: str,
    args: tuple[Expr, ...] = (),
    attrs: tuple[Hashable, ...] = (),
    shape: Shape = (),
    span: Span | None = None,
) -> Expr:
    """The one node of this structure."""
    key = (op, tuple(map(id, args)), attrs, shape)
    found = _interned.get(key)
    if found is None:
        found = Expr()
        found.op, found.args, found.attrs, found.shape, found.span = op, args, attrs, shape, span
        _interned[key] = found
    return found


# -- raw constructors: no simplification (that is `ir.build`) ----------------------------------------------------------


def sym(name: str, role: Role, shape: Shape = (), span: Span | None = None) -> Expr:
    return node("sym", (), (name, role), shape, span)


def num(value: float, span: Span | None = None) -> Expr:
    return node("num", (), (float(value),), (), span)


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every node below the roots once, arguments before their users."""
    seen: set[Expr] = set()
    for root in roots:
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            e, expanded = stack.pop()
            if e in seen:
                continue
            if expanded:
                seen.add(e)
                yield e
            else:
                stack.append((e, True))
                stack.extend((a, False) for a in reversed(e.args) if a not in seen)


def symbols(*roots: Expr) -> frozenset[Expr]:
    """The free symbols (the bound one of grad/jac/divergence/hess excluded outside its body)."""
    none: frozenset[Expr] = frozenset()
    memo: dict[Expr, frozenset[Expr]] = {}
    for e in walk(*roots):
        if e.op == "sym":
            memo[e] = frozenset((e,))
        elif e.op in ("grad", "jac", "divergence", "hess"):
            body, bound, point = e.args
            memo[e] = (memo[body] - {bound}) | memo[point]
        else:
            memo[e] = none.union(*(memo[a] for a in e.args))
    return none.union(*(memo[r] for r in roots))


def depends(e: Expr, on: frozenset[Expr] | set[Expr]) -> bool:
    """Whether a symbol of `on` occurs free in e."""
    return not symbols(e).isdisjoint(on)


def rebuild(
    root: Expr,
    leaf: Callable[[Expr], Expr | None],
    make: Callable[[Expr, tuple[Expr, ...]], Expr],
    everywhere: bool = False,
) -> Expr:
    """Bottom-up rewrite: `leaf(e)` may replace a node outright (None: no); else `make(e, new_args)`. Shared nodes once.

    Nodes whose arguments stayed the same are kept, unless `everywhere`.
    """
    memo: dict[Expr, Expr] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        e, expanded = stack.pop()
        if e in memo:
            continue
        if not expanded:
            replaced = leaf(e)
            if replaced is not None:
                memo[e] = replaced
                continue
            stack.append((e, True))
            stack.extend((a, False) for a in e.args if a not in memo)
        else:
            args = tuple(memo[a] for a in e.args)
            memo[e] = e if args == e.args and not everywhere else make(e, args)
    return memo[root]


def same_with(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node with other arguments of the same shapes."""
    return node(e.op, args, e.attrs, e.shape, e.span)


def substitute(root: Expr, values: dict[Expr, Expr]) -> Expr:
    """Replace free symbols by expressions of the same shape. Bound symbols are unique, so nothing is captured."""
    return rebuild(root, lambda e: values.get(e) if e.op == "sym" else None, same_with)


def elements(e: Expr) -> Dim:
    """Number of elements of a node's value."""
    total = ONE
    for d in e.shape:
        total = total * d
    return total
