"""How parts of tensors, and sums and stacks over an index, are spelled: with one more axis, or as a Python loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from implicitdsl.ir.build import binder_of, items_of
from implicitdsl.ir.dims import ONE, ZERO, Dim
from implicitdsl.ir.nodes import Expr

from .loops import item_dims, linear_in, picked_axis, vectorises
from .text import ATOM, MUL, NEG, Value, tuple_text

if TYPE_CHECKING:
    from .emitter import Emitter


def index_parts(em: Emitter, e: Expr) -> Value:
    a, axes = em.value(e.args[0]), em.axes_of(e)
    here = [n for n in em.ranges if n in frozenset[str]().union(*(d.names for d in item_dims(e)))]
    parts: list[str] = []
    kept = 0
    moved: int | None = None  # how many kept axes precede the one that becomes an index axis
    for axis, item in enumerate(items_of(e)):
        if len(item) == 3:
            lo, hi = item[1], item[2]
            whole = lo.value == 0 and hi == e.args[0].shape[axis]
            parts.append(":" if whole else f"{em.dim(lo).text}:{em.dim(hi).text}")
            kept += 1
        elif here and picked_axis(e, here[0]) == axis:
            parts.append(_strided(em, item[1], here[0], e.args[0].shape[axis]))
            moved = kept
        else:
            parts.append(em.dim(item[1]).text)
    rest = e.args[0].rank - len(parts)
    parts += [":"] * rest
    text = a.at(ATOM) if set(parts) == {":"} else f"{a.at(ATOM)}[{', '.join(['...', *parts])}]"
    kept += rest
    if moved:
        text += f".movedim({moved - kept - 1}, {-kept - 1})"
    return Value(text, axes=axes)


def _strided(em: Emitter, d: Dim, name: str, size: Dim) -> str:
    """The slice of positions d for the index in its range."""
    if d == Dim.of(name) and em.ranges[name] == (ZERO, size):
        return ":"
    lo, hi = em.ranges[name]
    linear = linear_in(d, name)
    assert linear is not None
    first = d.subs({name: lo})
    last = d.subs({name: hi - ONE}) + ONE
    step = "" if linear[0] == 1 else f":{linear[0]}"
    return f"{em.dim(first).text}:{em.dim(last).text}{step}"


def embed(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    g = em.tensor(em.aligned(e.args[0], axes))
    items = [
        em.dim(item[1]).text if len(item) == 2 else f"slice({em.dim(item[1]).text}, {em.dim(item[2]).text})"
        for item in items_of(e)
    ]
    return Value(f"ops.embed({g.text}, {em.shape(e.shape)}, {tuple_text(items)})", axes=axes)


def indexed(em: Emitter, e: Expr) -> Value:
    name, lo, hi = binder_of(e)
    body = e.args[0]
    if name not in em.free[body]:
        return _constant_body(em, e)
    if not vectorises(e, em.free):
        return _loop(em, e)
    shadowed = em.ranges.pop(name, None)
    outer = em.axes_of(e)
    em.ranges[name] = (lo, hi)
    try:
        v = em.aligned(body, (*outer, name))
        if e.op == "stack_for":
            return Value(v.text, v.level, axes=outer)
        return Value(f"{v.at(ATOM)}.sum({-1 - body.rank})", axes=outer)
    finally:
        del em.ranges[name]
        if shadowed is not None:
            em.ranges[name] = shadowed


def _constant_body(em: Emitter, e: Expr) -> Value:
    _, lo, hi = binder_of(e)
    v = em.value(e.args[0])
    count = em.dim(hi - lo)
    if e.op == "sum_for":
        return Value(f"{count.at(MUL)} * {v.at(NEG)}", MUL, v.number, v.axes)
    return Value(f"ops.repeat({em.tensor(v).text}, {e.args[0].rank}, {count.text})", axes=v.axes)


def _loop(em: Emitter, e: Expr) -> Value:
    """A Python loop that adds or collects."""
    from .emitter import Scope  # the emitter knows the spellings, a loop opens a scope

    name, lo, hi = binder_of(e)
    body, axes = e.args[0], em.axes_of(e)
    result = em.names.temporary()
    home = em.scopes[-1].lines
    variable = em.names.fresh(name)
    outer_axes = em.ranges
    em.ranges = {n: r for n, r in em.ranges.items() if n != name}
    shadowed = em.loop_variable(name, variable)
    em.scopes.append(Scope(frozenset((name,))))
    try:
        v = em.tensor(em.aligned(body, axes))
        inner = em.scopes.pop().lines
    finally:
        em.ranges = outer_axes
        em.loop_variable(name, shadowed)
    start = f"{em.like()}.new_zeros({em.shape(body.shape) if body.shape else '()'})" if e.op == "sum_for" else "[]"
    inner.append(f"{result} = {result} + {v.at(MUL)}" if e.op == "sum_for" else f"{result}.append({v.text})")
    home += [f"{result} = {start}", f"for {variable} in range({em.dim(lo).text}, {em.dim(hi).text}):"]
    home += ["    " + line for line in inner]
    if e.op == "sum_for":
        return Value(result, axes=axes)
    return Value(f"ops.stack({result}, {body.rank})", axes=axes)
