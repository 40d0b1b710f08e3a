"""How each node of the IR is spelled in torch: one function an op, by a table. The rules of batching: `codegen`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr

from . import ops
from .calls import apply, apply_jvp, apply_vjp
from .indexing import embed, index_parts, indexed
from .text import ADD, ATOM, MUL, NEG, POW, Value, dim_value, fill_spelling, number, tuple_text

if TYPE_CHECKING:
    from .emitter import Emitter


def spell(em: Emitter, e: Expr) -> Value:
    """The text of a node that is not a symbol."""
    rule = _RULES.get(e.op)
    if rule is None:
        raise ValueError(f"`{e.op}` has no torch spelling: expand it before code is generated")
    return rule(em, e)


# -- constants ---------------------------------------------------------------------------------------------------------


def _num(em: Emitter, e: Expr) -> Value:
    return number(e.number or 0.0)


def _dim(em: Emitter, e: Expr) -> Value:
    d = e.attrs[0]
    assert isinstance(d, Dim)
    axes = em.axes_of(e)
    if not axes:
        return em.dim(d)
    (axis,) = axes
    lo, hi = (em.dim(x).text for x in em.ranges[axis])
    like = em.like()
    positions = em.assign(Value(f"torch.arange({lo}, {hi}, dtype={like}.dtype, device={like}.device)")).text
    value = dim_value(d, lambda n: positions if n == axis else em.dim(Dim.of(n)).text)
    return Value(value.text, value.level, axes=axes)


def _constant(method: str) -> Callable[[Emitter, Expr], Value]:
    def rule(em: Emitter, e: Expr) -> Value:
        return Value(f"{em.like()}.{method}({em.shape(e.shape)})")

    return rule


def _eye(em: Emitter, e: Expr) -> Value:
    like = em.like()
    return Value(f"torch.eye({em.dim(e.shape[0]).text}, dtype={like}.dtype, device={like}.device)")


# -- elementwise -------------------------------------------------------------------------------------------------------


def _neg(em: Emitter, e: Expr) -> Value:
    a = em.value(e.args[0])
    return Value("-" + a.at(POW), NEG, a.number, a.axes)


def _add(em: Emitter, e: Expr) -> Value:
    """A chain of sums and differences; products with a matrix take the rest as what they are added to."""
    axes = em.axes_of(e)
    terms: list[tuple[int, Expr]] = []
    stack = [(1, e)]
    while stack:
        sign, x = stack.pop()
        if x.op == "add" and (x is e or (em.uses(x) == 1 and x.shape == e.shape)):
            stack += [(sign, x.args[1]), (sign, x.args[0])]
        elif x.op == "neg" and em.uses(x) == 1 and x.args[0].shape == e.shape and x.args[0].op == "add":
            stack.append((-sign, x.args[0]))
        elif x.op == "neg":
            terms.append((-sign, x.args[0]))
        else:
            terms.append((sign, x))
    factor = _common_factor(em, terms)
    if factor is not None:
        terms = [(s, t.args[1]) for s, t in terms]
    fused = [t for s, t in terms if s > 0 and _is_matvec(t) and em.uses(t) == 1]
    plain = [(s, t) for s, t in terms if t not in fused or s < 0]
    if not plain:
        plain, fused = [(1, fused[0])], fused[1:]
    if plain[0][0] < 0:
        plain.sort(key=lambda st: -st[0])
    total: Value | None = None
    for sign, t in plain:
        v = em.aligned(t, axes, e.rank)
        if total is None:
            total = v if sign > 0 else Value("-" + v.at(POW), NEG, v.number)
        else:
            total = Value(
                f"{total.at(ADD)} {'+' if sign > 0 else '-'} {v.at(ADD if sign > 0 else MUL)}",
                ADD,
                total.number and v.number,
            )
    assert total is not None
    held = not axes and not any(em.is_inner(t) for _, t in plain)
    for t in reversed(fused):
        if total.number:
            total = Value(f"{total.at(ADD)} + {em.aligned(t, axes).at(MUL)}", ADD)
            continue
        A, x = t.args
        if A.op == "transpose":
            total = Value(
                f"ops.vecaffine({em.aligned(x, axes).text}, {em.aligned(A.args[0], axes).text}, {total.text})"
            )
        else:
            matrix, vector = em.aligned(A, axes).text, em.aligned(x, axes).text
            if held and em.is_inner(x) and not em.is_inner(A):
                apply = em.assign(Value(f"ops.affine_by({matrix}, {total.text})"), scope=0)
                total = Value(f"{apply.text}({vector})")
            else:
                total = Value(f"ops.affine({matrix}, {vector}, {total.text})")
        held = held and not em.is_inner(t)
    if factor is not None:
        return Value(f"{em.value(factor).at(MUL)} * {total.at(NEG)}", MUL, False, axes)
    return Value(total.text, total.level, total.number, axes)


def _common_factor(em: Emitter, terms: Sequence[tuple[int, Expr]]) -> Expr | None:
    """The number that all terms are multiplied by, if each has its shape from the other factor: c (a + b) = c a + c b
    is one product for many, of which ½ (Q + Qᵀ) for large Q shows."""
    first = terms[0][1]
    if len(terms) < 2 or first.op != "mul" or first.args[0].number is None:
        return None
    same = all(
        t.op == "mul" and t.args[0] == first.args[0] and t.args[1].shape == first.shape and em.uses(t) == 1
        for _, t in terms
    )
    return first.args[0] if same else None


def _is_matvec(e: Expr) -> bool:
    return e.op == "matmul" and e.args[0].rank == 2 and e.args[1].rank == 1


def _binary(symbol: str, level: int, left: int, right: int) -> Callable[[Emitter, Expr], Value]:
    def rule(em: Emitter, e: Expr) -> Value:
        axes = em.axes_of(e)
        a, b = (em.aligned(x, axes, e.rank) for x in e.args)
        return Value(f"{a.at(left)} {symbol} {b.at(right)}", level, a.number and b.number, axes)

    return rule


def _mul(em: Emitter, e: Expr) -> Value:
    a, b = e.args
    if b.op == "ones" and a.number is not None:
        return Value(f"{em.like()}.new_full({em.shape(e.shape)}, {em.value(a).text})")
    for u, slope in ((a, b), (b, a)):
        squared = _one_less_square(slope)
        apart = em.is_inner(u) and not em.is_inner(slope)  # the slope is computed once, for many u
        if squared is None or em.uses(slope) != 1 or u.shape != squared.shape or apart:
            continue
        if not (em.value(u).number or em.value(squared).number):
            return _product(em, "less_square", (u, squared), em.axes_of(e))
    return _binary("*", MUL, MUL, NEG)(em, e)


def _one_less_square(e: Expr) -> Expr | None:
    """a of `1 - a^2`, which is how the slope of `tanh` is written."""
    if e.op != "add" or e.args[0].number != 1 or e.args[1].op != "neg":
        return None
    (power,) = e.args[1].args
    return power.args[0] if power.op == "pow" and power.args[1].number == 2 else None


def _call(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    f = em.functions[e.name]
    if f.elementwise:
        values = [em.aligned(x, axes, e.rank) for x in e.args]
        if all(v.number for v in values):
            values[0] = em.tensor(values[0])
        v = fill_spelling(f.torch, values)
    elif "{" in f.torch:
        v = fill_spelling(f.torch, [em.tensor(em.aligned(x, axes)) for x in e.args])
    else:
        given = ", ".join(em.tensor(em.aligned(x, axes)).text for x in e.args)
        op = getattr(ops, f.torch)
        ranked = "rank" in inspect.signature(op).parameters
        v = Value(f"ops.{f.torch}({given}, {e.args[0].rank})" if ranked else f"ops.{f.torch}({given})")
    return Value(v.text, v.level, axes=axes)


# -- linear algebra ----------------------------------------------------------------------------------------------------


def _matmul(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    a, b = e.args
    if a.rank == 2 and b.rank == 2:
        x, y = em.aligned(a, axes), em.aligned(b, axes)
        return Value(f"{x.at(MUL)} @ {y.at(NEG)}", MUL, axes=axes)
    if a.rank == 2:
        if a.op == "transpose":
            return _product(em, "vecmat", (b, a.args[0]), axes)
        return _product(em, "matvec", (a, b), axes)
    if b.rank == 2:
        if b.op == "transpose":
            return _product(em, "matvec", (b.args[0], a), axes)
        return _product(em, "vecmat", (a, b), axes)
    return _product(em, "dot", (a, b), axes)


def _product(em: Emitter, op: str, args: tuple[Expr, ...], axes: tuple[str, ...]) -> Value:
    return Value(f"ops.{op}({', '.join(em.aligned(x, axes).text for x in args)})", axes=axes)


def _outer(em: Emitter, e: Expr) -> Value:
    return _product(em, "outer", e.args, em.axes_of(e))


def _method(suffix: str) -> Callable[[Emitter, Expr], Value]:
    def rule(em: Emitter, e: Expr) -> Value:
        a = em.value(e.args[0])
        return Value(a.at(ATOM) + suffix, axes=a.axes)

    return rule


def _diag(em: Emitter, e: Expr) -> Value:
    a = em.value(e.args[0])
    return Value(f"torch.diag_embed({a.text})", axes=a.axes)


def _sum(em: Emitter, e: Expr) -> Value:
    a, rank = em.value(e.args[0]), e.args[0].rank
    if rank == 0:
        return a
    over = "-1" if rank == 1 else str(tuple(range(-rank, 0)))
    return Value(f"{a.at(ATOM)}.sum({over})", axes=a.axes)


# -- parts and joins ---------------------------------------------------------------------------------------------------


def _concat(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    parts: list[str] = []
    for a in e.args:
        v = em.tensor(em.aligned(a, axes))
        parts.append(v.text if a.rank else f"{v.at(ATOM)}.unsqueeze(-1)")
    return Value(f"ops.concat({tuple_text(parts)}, {e.rank})", axes=axes)


def _stack(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    numbers = _literal(e)
    if numbers is not None:
        like = em.like()
        where = f", dtype={like}.dtype, device={like}.device" if like else ""
        return Value(f"torch.tensor({numbers}{where})")
    values = [em.aligned(a, axes) for a in e.args]
    parts = tuple_text([em.tensor(v).text for v in values])
    return Value(f"ops.stack({parts}, {e.rank - 1})", axes=axes)


def _literal(e: Expr) -> str | None:
    """A stack of numbers, or of such stacks, as nested lists."""
    parts = [_literal(a) if a.op == "stack" else None if a.number is None else f"{a.number!r}" for a in e.args]
    return None if None in parts else f"[{', '.join(map(str, parts))}]"


def _reshape(em: Emitter, e: Expr) -> Value:
    a = em.tensor(em.value(e.args[0]))
    return Value(f"ops.reshape({a.text}, {e.args[0].rank}, {em.shape(e.shape)})", axes=a.axes)


# -- cotangents of shared inputs ---------------------------------------------------------------------------------------


def reduced(em: Emitter, e: Expr, like: str) -> str | None:
    """A term of a cotangent, summed like the input it belongs to without a per-sample matrix, if it is a product."""
    if e.op == "outer":
        u, v = (em.aligned(a, ()) for a in e.args)
        return f"ops.outer_like({u.text}, {v.text}, {like})"
    if e.op == "matmul" and e.rank == 2:
        a, b = (em.aligned(x, ()) for x in e.args)
        return f"ops.matmul_like({a.text}, {b.text}, {like})"
    if e.op == "mul" and e.args[0].number is not None:
        inner = reduced(em, e.args[1], like)
        return None if inner is None else f"{em.value(e.args[0]).at(NEG)} * {inner}"
    return None


_RULES: dict[str, Callable[[Emitter, Expr], Value]] = {
    "num": _num,
    "dim": _dim,
    "zeros": _constant("new_zeros"),
    "ones": _constant("new_ones"),
    "eye": _eye,
    "neg": _neg,
    "add": _add,
    "mul": _mul,
    "div": _binary("/", MUL, MUL, NEG),
    "pow": _binary("**", POW, ATOM, NEG),
    "matmul": _matmul,
    "outer": _outer,
    "transpose": _method(".mT"),
    "index": index_parts,
    "embed": embed,
    "sum": _sum,
    "diag": _diag,
    "diagonal": _method(".diagonal(dim1=-2, dim2=-1)"),
    "concat": _concat,
    "stack": _stack,
    "reshape": _reshape,
    "call": _call,
    "sum_for": indexed,
    "stack_for": indexed,
    "apply": apply,
    "apply_jvp": apply_jvp,
    "apply_vjp": apply_vjp,
}
