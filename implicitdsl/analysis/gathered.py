"""Comprehensions whose terms do not meet: Σᵢ f(z[i], a[i]) is sum(f(z, a)), a list of g(z[i]) the vector g(z)."""

from __future__ import annotations

from dataclasses import replace

from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.names import binder_of, free_names
from implicitdsl.ir.nodes import Expr, rebuild, walk
from implicitdsl.ir.plan import Program
from implicitdsl.ir.remake import remake

ENTRYWISE = frozenset(("neg", "add", "mul", "div", "pow"))
Binders = tuple[tuple[str, Dim, Dim], ...]


def gathered(form: Program, functions: Functions) -> Program:
    """The program with comprehensions as operations on whole vectors and matrices, as far as they are such."""
    objective = _gathered(form.objective, functions)
    constraints = tuple(
        c if (body := _gathered(c.body, functions)) is c.body else replace(c, body=body) for c in form.constraints
    )
    return replace(form, objective=objective, constraints=constraints)


def _gathered(e: Expr, functions: Functions) -> Expr:
    running = frozenset(binder_of(x)[0] for x in walk(e) if x.op in ("sum_for", "stack_for"))

    def leaf(x: Expr) -> Expr | None:
        if x.op == "stack_for" and x.rank == 1:
            return _whole(x.args[0], (binder_of(x),), running, functions)
        if x.op != "sum_for" or x.rank:
            return None
        binders: list[tuple[str, Dim, Dim]] = []
        while x.op == "sum_for":
            binders.append(binder_of(x))
            x = x.args[0]
        whole = _whole(x, tuple(binders), running, functions)
        return None if whole is None else build.total(whole)

    return rebuild(e, leaf, remake)


def _whole(e: Expr, binders: Binders, running: frozenset[str], functions: Functions) -> Expr | None:
    """The number e for all values of its indices at once; None where these do more than pick entries."""
    names, memo = frozenset(name for name, _, _ in binders), dict[Expr, frozenset[str]]()
    if any((lo.names | hi.names) & running for _, lo, hi in binders):  # shapes do not vary
        return None
    shape = tuple(hi - lo for _, lo, hi in binders)
    found: dict[Expr, Expr | None] = {}
    for x in walk(e):
        args = [found[a] for a in x.args]
        if not free_names(x, memo) & names:
            found[x] = x
        elif x.op == "index":
            found[x] = None if args[0] is not x.args[0] else _sliced(x, binders)
        elif x.rank or None in args:
            found[x] = None
        else:
            found[x] = _entrywise(x, [a for a in args if a is not None], functions)
    whole = found[e]
    return whole if whole is not None and whole.shape == shape else None


def _sliced(x: Expr, binders: Binders) -> Expr | None:
    """v[lo + k : hi + k] for v[i + k], index by index."""
    left, items = list(binders), list[build.Item]()
    names = frozenset(name for name, _, _ in binders)
    for item in build.items_of(x):
        if len(item) == 2 and left and left[0][0] in item[1].names:
            name, lo, hi = left.pop(0)
            step = item[1] - Dim.of(name)
            if step.names & names:
                return None
            items.append(build.slice_item(lo + step, hi + step))
        elif any(d.names & names for d in item[1:]):
            return None
        else:
            items.append(item)
    return None if left else build.index(x.args[0], items)


def _entrywise(x: Expr, args: list[Expr], functions: Functions) -> Expr | None:
    """An operation on numbers done to vectors; a product of a row A[i] and a vector as A times it."""
    if x.op in ENTRYWISE:
        return remake(x, tuple(args))
    if x.op == "matmul":
        (a, b), rows = args, [a for a in args if a.rank == 2]
        if len(rows) != 1 or {a.rank, b.rank} != {1, 2}:
            return None
        return build.matmul(rows[0], b if a is rows[0] else a)
    function = functions.get(x.name) if x.op == "call" else None
    if function is None or not function.elementwise:
        return None
    shape = max((a.shape for a in args), key=len)
    return build.call(x.name, tuple(a if a.shape == shape else build.fill(a, shape) for a in args), shape)
