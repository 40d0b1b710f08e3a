"""Transposition: cotangents of an expression pulled back to what it depends on, in one reverse sweep over the DAG."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, sym

from .rules import ATOMS, pullback, tangent


def vjp(expr: Expr, cotangent: Expr, wrt: Sequence[Expr], functions: Functions) -> tuple[Expr, ...]:
    """(∂expr/∂x)ᵀ cotangent for each x of `wrt`, of x's shape; zeros where expr does not depend on x.

    Each node is linearized locally and transposed, shared nodes once: the cost is a few times that of expr. `wrt` are
    symbols (or `at` and `deriv` nodes). Opaque functions give `apply_vjp` nodes. `expand` goes before.
    """
    assert cotangent.shape == expr.shape, "a cotangent has the expression's shape"
    found = sweep(expr, cotangent, frozenset(wrt), functions)
    return tuple(found.get(x, build.zeros(x.shape)) for x in wrt)


def transpose(linear: Expr, x: Expr, cotangent: Expr, functions: Functions) -> Expr:
    """Aᵀ cotangent of an expression A x. What is not linear in x has no transpose: AssertionError."""
    result = vjp(linear, cotangent, (x,), functions)[0]
    assert x not in _below(result, frozenset((x,))), "the expression is not linear in what it is transposed by"
    return result


def gradient(expr: Expr, x: Expr, functions: Functions) -> Expr:
    """∇ of a scalar."""
    return vjp(expr, build.num(1.0), (x,), functions)[0]


def sweep(
    root: Expr,
    cotangent: Expr,
    targets: frozenset[Expr],
    functions: Functions,
    fixed: frozenset[Expr] = frozenset(),
) -> dict[Expr, Expr]:
    """The cotangents of those targets on which root depends. Targets may be any nodes; nothing below them is visited,
    nor below `fixed` nodes, which the caller knows not to depend on targets.
    """
    order = _below(root, targets, fixed)
    varying = frozenset(order)
    bars: dict[Expr, Expr] = {root: cotangent}
    names: dict[Expr, frozenset[str]] = {}

    def receive(e: Expr, g: Expr) -> None:
        bars[e] = build.add(bars[e], g) if e in bars else g

    for e in reversed(order):
        g = bars.get(e)
        if g is None or e in targets or build.is_zero(g):
            continue
        if e.op in ("sum_for", "stack_for"):
            for leaf, part in _sweep_binder(e, g, targets, varying, names, functions).items():
                receive(leaf, part)
            continue
        for k, a in enumerate(e.args):
            if a in order:
                receive(a, _local(e, k, g, functions))
    return {t: bars[t] for t in targets if t in bars}


def _below(root: Expr, targets: frozenset[Expr], fixed: frozenset[Expr] = frozenset()) -> dict[Expr, None]:
    """The nodes that depend on targets, and these, arguments first (a dict serves as an ordered set)."""
    order: dict[Expr, None] = {}
    done: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        e, expanded = stack.pop()
        if expanded:
            if any(a in order for a in e.args):
                order[e] = None
            continue
        if e in done:
            continue
        done.add(e)
        if e in targets:
            order[e] = None
        elif e.op not in ATOMS and e not in fixed:
            stack.append((e, True))
            stack.extend((a, False) for a in reversed(e.args))
    return order


def _local(e: Expr, k: int, g: Expr, functions: Functions) -> Expr:
    """The cotangent of argument k: by a rule, or by linearizing the node in that argument and transposing."""
    if e.op == "call":
        rule = functions[e.name].transpose
        if rule is not None:
            return rule(e, k, g)
    else:
        found = pullback(e, k, g)
        if found is not None:
            return found
    t = sym(f"<{k}>", Role.TANGENT, e.args[k].shape)
    linear = tangent(e, [t if i == k else None for i in range(len(e.args))], functions)
    found = sweep(linear, g, frozenset((t,)), functions, frozenset((e, *e.args)))
    return found.get(t, build.zeros(t.shape))


def _sweep_binder(
    e: Expr,
    g: Expr,
    targets: frozenset[Expr],
    varying: frozenset[Expr],
    names: dict[Expr, frozenset[str]],
    functions: Functions,
) -> dict[Expr, Expr]:
    """The cotangents of what the body uses from outside its loop: sums over the loop of the body's cotangents."""
    name, lo, hi = build.binder_of(e)
    body = e.args[0]
    taken = build.free_names(g)
    leaves = _from_outside(body, name, targets, varying, names)
    if name in taken:
        fresh = build.fresh_name(name, taken | build.free_names(body, names))
        body, name = build.index_value(body, name, Dim.of(fresh)), fresh
    inner = g if e.op == "sum_for" else build.index(g, (build.at_item(Dim.of(name) - lo),))
    found = sweep(body, inner, leaves, functions)
    return {leaf: build.sum_for(part, name, lo, hi) for leaf, part in found.items()}


def _from_outside(
    body: Expr, name: str, targets: frozenset[Expr], varying: frozenset[Expr], names: dict[Expr, frozenset[str]]
) -> frozenset[Expr]:
    """The largest varying parts of a loop's body that do not depend on its index or on that of a loop inside."""
    bound = {name}
    stack = [body]
    seen: set[Expr] = set()
    while stack:
        e = stack.pop()
        if e not in seen:
            seen.add(e)
            if e.op in ("sum_for", "stack_for"):
                bound.add(build.binder_of(e)[0])
            stack.extend(e.args)
    leaves: set[Expr] = set()
    stack = [body]
    seen.clear()
    while stack:
        e = stack.pop()
        if e in seen or e not in varying:
            continue
        seen.add(e)
        if e in targets or not build.free_names(e, names) & bound:
            leaves.add(e)
        else:
            stack.extend(e.args)
    return frozenset(leaves)
