"""Jacobians in closed form: matrices built from the matrices of the expression, `diag(1 - a^2) W`, not from columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from implicitdsl.ir import build
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, num, sym, walk

from .forward import linearize
from .rules import ATOMS, tangent
from .transpose import gradient, vjp

ELEMENTWISE = frozenset(("neg", "add", "mul", "div", "pow"))


def jacobian(expr: Expr, x: Expr, functions: Functions) -> Expr | None:
    """∂expr/∂x in closed form, of shape expr × x; None where the structure has none, then see `dense_jacobian`.

    A scalar expr has its gradient, a scalar x the tangent. Vector by vector: Jacobians of the parts are multiplied by
    the parts' own, which are diagonal for elementwise functions and stay row scalings. Matrices that depend on x have
    none.
    """
    if not _varies(expr, frozenset((x,))):
        return build.zeros(expr.shape + x.shape)
    if expr.rank == 0:
        return gradient(expr, x, functions)
    if x.rank == 0:
        return linearize(expr, {x: num(1.0)}, functions)
    if expr.rank != 1 or x.rank != 1:
        return None
    return _rows(expr, {x: build.eye(x.shape[0])}, functions)


def dense_jacobian(expr: Expr, x: Expr, functions: Functions) -> Expr:
    """∂expr/∂x, of shape expr × x: closed term by term, else stacked from n directional derivatives (vector by vector)
    or, for matrices, from one VJP an entry of expr."""
    if expr.op == "add" and all(a.shape == expr.shape for a in expr.args):
        return build.add(*(dense_jacobian(a, x, functions) for a in expr.args))
    if expr.op == "neg":
        return build.neg(dense_jacobian(expr.args[0], x, functions))
    closed = jacobian(expr, x, functions)
    if closed is not None:
        return closed
    if expr.rank == 1 and x.rank == 1:
        name = fresh_index(expr)
        basis = build.embed(num(1.0), (build.at_item(Dim.of(name)),), x.shape)
        columns = build.stack_for(linearize(expr, {x: basis}, functions), name, ZERO, x.shape[0])
        return build.transpose(columns)
    return _stacked(expr, x, expr.shape, (), functions)


def _stacked(expr: Expr, x: Expr, rest: tuple[Dim, ...], names: tuple[str, ...], functions: Functions) -> Expr:
    """Stacks over all entries of expr of its gradients."""
    if not rest:
        entry = build.embed(num(1.0), tuple(build.at_item(Dim.of(n)) for n in names), expr.shape)
        return vjp(expr, entry, (x,), functions)[0]
    name = fresh_index(expr, names)
    return build.stack_for(_stacked(expr, x, rest[1:], (*names, name), functions), name, ZERO, rest[0])


def fresh_index(expr: Expr, taken: tuple[str, ...] = ()) -> str:
    """An index name that occurs nowhere in the expression."""
    used = set(taken)
    for e in walk(expr):
        if e.op in ("sum_for", "stack_for"):
            used.add(build.binder_of(e)[0])
    return build.fresh_name("k~", used | build.free_names(expr))


def _varies(expr: Expr, on: frozenset[Expr]) -> bool:
    return any(e in on for e in walk(expr))


def _rows(expr: Expr, seeds: Mapping[Expr, Expr], functions: Functions) -> Expr | None:
    """The Jacobian of a vector expr when the symbols of `seeds` have these Jacobians; None if there is no closed
    form."""
    return _Rows(seeds, functions).of(expr)


class _Rows:
    """Jacobians of the vectors (matrices) and scalars (row vectors) of one DAG, by the same seeds."""

    def __init__(self, seeds: Mapping[Expr, Expr], functions: Functions) -> None:
        self.seeds = seeds
        self.functions = functions
        self.known: dict[Expr, Expr | None] = {}
        self.constant: set[Expr] = set()
        self.columns = next(iter(seeds.values())).shape[1]

    def of(self, expr: Expr) -> Expr | None:
        """None: no closed form."""
        for e in walk(expr):
            if e in self.seeds:
                self.known[e] = self.seeds[e]
            elif e.op in ATOMS or all(a in self.constant for a in e.args):
                self.constant.add(e)
        for e in self.needed(expr):
            self.jacobian(e)
        return self.jacobian(expr)

    def needed(self, expr: Expr) -> list[Expr]:
        """The vectors on the way, arguments first: deep expressions then need no deep recursion."""
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack: list[tuple[Expr, bool]] = [(expr, False)]
        while stack:
            e, expanded = stack.pop()
            if expanded:
                order.append(e)
            elif e not in seen and e not in self.constant and e.rank == 1:
                seen.add(e)
                stack.append((e, True))
                stack.extend((a, False) for a in e.args)
        return order

    def jacobian(self, e: Expr) -> Expr | None:
        """Of a vector: (n, columns); of a scalar: (columns)."""
        if e not in self.known:
            self.known[e] = self.compute(e)
        return self.known[e]

    def compute(self, e: Expr) -> Expr | None:
        if e in self.constant:
            return build.zeros((*e.shape, self.columns))
        if e.rank == 0:
            return self.scalar(e)
        if e.rank > 1:
            return None
        if e.op in ELEMENTWISE or (e.op == "call" and self.functions[e.name].elementwise):
            return self.elementwise(e)
        if e.op == "call":
            return self.through(e)
        rule = _ROWS.get(e.op)
        return None if rule is None else rule(self, e)

    def scalar(self, e: Expr) -> Expr | None:
        """The gradient by the seeds' symbols, times the seeds."""
        parts = vjp(e, num(1.0), tuple(self.seeds), self.functions)
        total = build.zeros((self.columns,))
        for part, seed in zip(parts, self.seeds.values(), strict=True):
            total = build.add(total, build.matmul(part, seed))
        return total

    def elementwise(self, e: Expr) -> Expr | None:
        """diag(∂e/∂a) J_a for each vector argument a, an outer product for a scalar one."""
        total = build.zeros((*e.shape, self.columns))
        for k, a in enumerate(e.args):
            if a in self.constant:
                continue
            inner = self.jacobian(a)
            if inner is None:
                return None
            d = tangent(e, [build.ones(a.shape) if i == k else None for i in range(len(e.args))], self.functions)
            total = build.add(total, build.scale_rows(d, inner) if a.rank else build.outer(d, inner))
        return total

    def through(self, e: Expr) -> Expr | None:
        """A function of vectors: its own linearization is a vector expression in the tangents, whose Jacobians are
        known."""
        seeds: dict[Expr, Expr] = {}
        tangents: list[Expr | None] = []
        for k, a in enumerate(e.args):
            if a in self.constant:
                tangents.append(None)
                continue
            inner = self.jacobian(a)
            if inner is None or a.rank != 1:
                return None
            t = sym(f"<{k}>", Role.TANGENT, a.shape)
            seeds[t] = inner
            tangents.append(t)
        return _rows(tangent(e, tangents, self.functions), seeds, self.functions)

    def matmul(self, e: Expr) -> Expr | None:
        a, b = e.args
        if a.rank == 2 and a in self.constant:
            right = self.jacobian(b)
            return None if right is None else build.matmul(a, right)
        if b.rank == 2 and b in self.constant:
            left = self.jacobian(a)
            return None if left is None else build.matmul(build.transpose(b), left)
        return None

    def index(self, e: Expr) -> Expr | None:
        J = self.jacobian(e.args[0]) if e.args[0].rank == 1 else None
        return None if J is None else build.index(J, build.items_of(e))

    def embed(self, e: Expr) -> Expr | None:
        J = self.jacobian(e.args[0])
        return None if J is None else build.embed(J, build.items_of(e), (*e.shape, self.columns))

    def joined(self, e: Expr) -> Expr | None:
        """`concat` and `stack`: rows one above the other."""
        parts = [self.jacobian(a) for a in e.args]
        rows = [part for part in parts if part is not None]
        if len(rows) < len(parts):
            return None
        if e.op == "stack":
            return build.stack(rows)
        return build.concat([row if a.rank else build.stack((row,)) for a, row in zip(e.args, rows, strict=True)])

    def loop(self, e: Expr) -> Expr | None:
        """`sum_for` of vectors, `stack_for` of scalars."""
        J = self.jacobian(e.args[0])
        make = build.sum_for if e.op == "sum_for" else build.stack_for
        return None if J is None else make(J, *build.binder_of(e))


_ROWS: dict[str, Callable[[_Rows, Expr], Expr | None]] = {
    "matmul": _Rows.matmul,
    "index": _Rows.index,
    "embed": _Rows.embed,
    "concat": _Rows.joined,
    "stack": _Rows.joined,
    "sum_for": _Rows.loop,
    "stack_for": _Rows.loop,
}
