"""The derivative of one node: forward (`tangent`) and, where it is linear in an argument, backward (`pullback`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from implicitdsl.ir import build
from implicitdsl.ir.build import OpaqueName
from implicitdsl.ir.dims import ONE, ZERO
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, num

OPERATORS = frozenset(("grad", "jac", "divergence", "hess"))
"""Derivatives that `expand` carries out."""

ATOMS = frozenset(("sym", "num", "dim", "zeros", "ones", "eye", "at", "deriv", "dual"))
"""Nodes with no derivative of their own; they vary only if they are what one differentiates by."""

Tangents = Sequence[Expr | None]


# -- forward -----------------------------------------------------------------------------------------------------------


def tangent(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    """The directional derivative of a node from its arguments' (None: it does not vary). Linear in them."""
    rule = _TANGENTS.get(e.op)
    assert rule is not None, f"`{e.op}` has no derivative: expand it first"
    return rule(e, ts, functions)


def _spread(t: Expr, e: Expr) -> Expr:
    """A scalar tangent repeated to e's shape."""
    return t if t.shape == e.shape else build.fill(t, e.shape)


def _plus(parts: Sequence[Expr | None], e: Expr) -> Expr:
    """Their sum, of e's shape."""
    total = build.zeros(e.shape)
    for part in parts:
        if part is not None:
            total = build.add(total, _spread(part, e))
    return total


def _known(t: Expr | None) -> Expr:
    assert t is not None
    return t


def _mul(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    (a, b), (s, t) = e.args, ts
    return _plus([s and build.mul(s, b), t and build.mul(a, t)], e)


def _div(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    (_, b), (s, t) = e.args, ts
    return _plus([s and build.div(s, b), t and build.neg(build.div(build.mul(e, t), b))], e)


def _pow(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    (a, b), (s, t) = e.args, ts
    base = s and build.mul(build.mul(b, build.power(a, build.sub(b, num(1.0)))), s)
    exponent = t and build.mul(build.mul(e, build.call("log", (a,), a.shape)), t)
    return _plus([base, exponent], e)


def _bilinear(make: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Tangents, Functions], Expr]:
    def rule(e: Expr, ts: Tangents, functions: Functions) -> Expr:
        (a, b), (s, t) = e.args, ts
        return _plus([s and make(s, b), t and make(a, t)], e)

    return rule


def _joined(make: Callable[[Sequence[Expr]], Expr]) -> Callable[[Expr, Tangents, Functions], Expr]:
    def rule(e: Expr, ts: Tangents, functions: Functions) -> Expr:
        return make([build.zeros(a.shape) if t is None else t for a, t in zip(e.args, ts, strict=True)])

    return rule


def _call(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    jvp = functions[e.name].jvp
    assert jvp is not None, f"`{e.name}` has no derivative"
    return _spread(jvp(e, ts), e)


def opaque_of(e: Expr) -> tuple[OpaqueName, int]:
    """The function and output of an `apply`, `apply_jvp` or `apply_vjp` node."""
    return e.attrs[0], e.attrs[1]  # pyright: ignore[reportReturnType]  # the table in `ir.nodes`


def derived(e: Expr) -> OpaqueName:
    """The opaque function of all its arguments that an `apply_jvp` or `apply_vjp` node is a value of."""
    fn, output = opaque_of(e)
    if e.op == "apply_jvp":
        return ("jvp", fn, output)
    return ("vjp", fn, output, wanted(e))


def wanted(e: Expr) -> int:
    """The argument of an `apply_vjp` node's cotangent."""
    i = e.attrs[2]
    assert isinstance(i, int)
    return i


def _apply(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    fn, output = opaque_of(e)
    return build.apply_jvp(fn, e.args, ts, e.shape, output)


def _apply_jvp(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    fn, output = opaque_of(e)
    half = len(e.args) // 2
    linear = build.apply_jvp(fn, e.args[:half], ts[half:], e.shape, output)
    curved = build.apply_jvp(derived(e), e.args, [*ts[:half], *[None] * half], e.shape)
    return build.add(linear, curved)


def _apply_vjp(e: Expr, ts: Tangents, functions: Functions) -> Expr:
    fn, output = opaque_of(e)
    g = ts[-1]
    linear = build.zeros(e.shape) if g is None else build.apply_vjp(fn, e.args[:-1], g, wanted(e), output)
    return build.add(linear, build.apply_jvp(derived(e), e.args, [*ts[:-1], None], e.shape))


_TANGENTS: dict[str, Callable[[Expr, Tangents, Functions], Expr]] = {
    "neg": lambda e, ts, f: build.neg(_known(ts[0])),
    "add": lambda e, ts, f: _plus(ts, e),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "matmul": _bilinear(build.matmul),
    "outer": _bilinear(build.outer),
    "transpose": lambda e, ts, f: build.transpose(_known(ts[0])),
    "index": lambda e, ts, f: build.index(_known(ts[0]), build.items_of(e)),
    "embed": lambda e, ts, f: build.embed(_known(ts[0]), build.items_of(e), e.shape),
    "sum": lambda e, ts, f: build.total(_known(ts[0])),
    "diag": lambda e, ts, f: build.diag(_known(ts[0])),
    "diagonal": lambda e, ts, f: build.diagonal(_known(ts[0])),
    "concat": _joined(build.concat),
    "stack": _joined(build.stack),
    "reshape": lambda e, ts, f: build.reshape(_known(ts[0]), e.shape),
    "call": _call,
    "sum_for": lambda e, ts, f: build.sum_for(_known(ts[0]), *build.binder_of(e)),
    "stack_for": lambda e, ts, f: build.stack_for(_known(ts[0]), *build.binder_of(e)),
    "apply": _apply,
    "apply_jvp": _apply_jvp,
    "apply_vjp": _apply_vjp,
}


# -- backward ----------------------------------------------------------------------------------------------------------


def pullback(e: Expr, k: int, g: Expr) -> Expr | None:
    """The cotangent of argument k from g, that of the node; None where the node is not linear in that argument.

    Binders are the sweep's business: their bodies are swept, not their arguments.
    """
    rule = _PULLBACKS.get(e.op)
    return None if rule is None else rule(e, k, g)


def _reduced(g: Expr, to: Expr) -> Expr:
    """Summed, if the argument was a scalar that had been repeated."""
    return g if g.shape == to.shape else build.total(g)


def _scaled(g: Expr, factor: Expr, to: Expr) -> Expr:
    """g ∘ factor, summed if the argument was a scalar: then it is their inner product."""
    if not to.rank and g.rank and g.shape == factor.shape:
        return build.inner(g, factor)
    return _reduced(build.mul(g, factor), to)


def _pull_mul(e: Expr, k: int, g: Expr) -> Expr:
    return _scaled(g, e.args[1 - k], e.args[k])


def _pull_div(e: Expr, k: int, g: Expr) -> Expr:
    a, b = e.args
    if k == 0:
        return _reduced(build.div(g, b), a)
    return build.neg(_scaled(build.div(g, b), e, b))


def _pull_matmul(e: Expr, k: int, g: Expr) -> Expr:
    a, b = e.args
    match a.rank, b.rank, k:
        case 2, 2, 0:
            return build.matmul(g, build.transpose(b))
        case 2, 2, _:
            return build.matmul(build.transpose(a), g)
        case 2, 1, 0:
            return build.outer(g, b)
        case 2, 1, _:
            return build.matmul(build.transpose(a), g)
        case 1, 2, 0:
            return build.matmul(b, g)
        case 1, 2, _:
            return build.outer(a, g)
        case _:
            return build.mul(g, e.args[1 - k])


def _pull_outer(e: Expr, k: int, g: Expr) -> Expr:
    a, b = e.args
    return build.matmul(g, b) if k == 0 else build.matmul(build.transpose(g), a)


def _pull_concat(e: Expr, k: int, g: Expr) -> Expr:
    start = ZERO
    for a in e.args[:k]:
        start = start + (a.shape[0] if a.shape else ONE)
    part = e.args[k]
    item = build.slice_item(start, start + part.shape[0]) if part.shape else build.at_item(start)
    return build.index(g, (item,))


def _pull_apply(e: Expr, k: int, g: Expr) -> Expr:
    fn, output = opaque_of(e)
    return build.apply_vjp(fn, e.args, g, k, output)


def _pull_apply_jvp(e: Expr, k: int, g: Expr) -> Expr:
    fn, output = opaque_of(e)
    half = len(e.args) // 2
    if k >= half:
        return build.apply_vjp(fn, e.args[:half], g, k - half, output)
    return build.apply_vjp(derived(e), e.args, g, k)


def _pull_apply_vjp(e: Expr, k: int, g: Expr) -> Expr:
    fn, output = opaque_of(e)
    points, cotangent = e.args[:-1], e.args[-1]
    if k == len(points):
        tangents = [g if i == wanted(e) else None for i in range(len(points))]
        return build.apply_jvp(fn, points, tangents, cotangent.shape, output)
    return build.apply_vjp(derived(e), e.args, g, k)


_PULLBACKS: dict[str, Callable[[Expr, int, Expr], Expr]] = {
    "neg": lambda e, k, g: build.neg(g),
    "add": lambda e, k, g: _reduced(g, e.args[k]),
    "mul": _pull_mul,
    "div": _pull_div,
    "matmul": _pull_matmul,
    "outer": _pull_outer,
    "transpose": lambda e, k, g: build.transpose(g),
    "index": lambda e, k, g: build.embed(g, build.items_of(e), e.args[0].shape),
    "embed": lambda e, k, g: build.index(g, build.items_of(e)),
    "sum": lambda e, k, g: build.fill(g, e.args[0].shape),
    "diag": lambda e, k, g: build.diagonal(g),
    "diagonal": lambda e, k, g: build.diag(g),
    "concat": _pull_concat,
    "stack": lambda e, k, g: build.index(g, (build.at_item(k),)),
    "reshape": lambda e, k, g: build.reshape(g, e.args[0].shape),
    "apply": _pull_apply,
    "apply_jvp": _pull_apply_jvp,
    "apply_vjp": _pull_apply_vjp,
}
