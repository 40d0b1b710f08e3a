"""How opaque functions and their derivatives are called."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from implicitdsl.ir.nodes import Expr

from .text import Value, tuple_text

if TYPE_CHECKING:
    from .emitter import Emitter


def _function(em: Emitter, name: Hashable) -> str:
    """An opaque function, or one derived from it."""
    if not isinstance(name, tuple):
        return em.opaques[str(name)]
    kind, f, *numbers = name
    return f"ops.{kind}_of({', '.join([_function(em, f), *map(str, numbers)])})"


def apply(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    f, output = e.attrs
    assert isinstance(output, int)
    args = tuple_text([em.tensor(em.aligned(a, axes)).text for a in e.args])
    ranks = tuple_text([str(a.rank) for a in e.args])
    siblings = em.siblings(e)
    if len(siblings) > 1:
        return em.shared_call((f, e.args, axes), f"ops.apply_all({_function(em, f)}, {args}, {ranks})", output, axes)
    more = f", {output}" if output else ""
    return Value(f"ops.apply({_function(em, f)}, {args}, {ranks}{more})", axes=axes)


def apply_jvp(em: Emitter, e: Expr) -> Value:
    axes = em.axes_of(e)
    f, output = e.attrs
    texts = [em.tensor(em.aligned(a, axes)).text for a in e.args]
    half = len(texts) // 2
    ranks = tuple_text([str(a.rank) for a in e.args[:half]])
    more = f", {output}" if output else ""
    call = f"ops.apply_jvp({_function(em, f)}, {tuple_text(texts[:half])}, {tuple_text(texts[half:])}, {ranks}{more})"
    return Value(call, axes=axes)


def apply_vjp(em: Emitter, e: Expr) -> Value:
    """One call for all arguments whose cotangents are needed."""
    axes = em.axes_of(e)
    f, output, i = e.attrs
    assert isinstance(i, int)
    texts = [em.tensor(em.aligned(a, axes)).text for a in e.args]
    *args, cotangent = texts
    ranks = tuple_text([str(a.rank) for a in e.args[:-1]])
    wrt = sorted({int(str(s.attrs[2])) for s in em.siblings(e)})
    more = f", {output}" if output else ""
    call = (
        f"ops.apply_vjp({_function(em, f)}, {tuple_text(args)}, {cotangent}, {ranks}, {e.args[-1].rank}, "
        f"{tuple_text([str(w) for w in wrt])}{more})"
    )
    if len(wrt) == 1:
        return Value(f"{call}[0]", axes=axes)
    return em.shared_call((f, output, e.args, axes), call, wrt.index(i), axes)
