"""What one computation finds on its way and a later one needs again: kept, it need not be computed twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, Role, rebuild, sym, walk
from implicitdsl.ir.remake import remake

from .hoist import Varies

COSTLY = frozenset(("matmul", "call", "sum_for", "stack_for"))
"""Operations whose results are worth keeping: products with matrices, and functions such as `tanh`."""


def shared(
    exprs: Sequence[Expr], before: Sequence[Expr], on: Iterable[Expr], prefix: str
) -> tuple[tuple[Expr, ...], tuple[tuple[Expr, Expr], ...]]:
    """(expressions in which the largest parts that `before` computes too are symbols of Role.HOISTED, those symbols and
    parts).

    Only parts that depend on `on` and cost more than a few elementwise products, and none larger in rank than `before`:
    what is kept for every sample must not be a matrix where the values themselves are vectors. Parts that depend on the
    index of a loop stay.
    """
    varies, found = Varies(on), dict[Expr, Expr]()
    known, rank = frozenset(walk(*before)), max(1, *(e.rank for e in before))
    bound = frozenset(build.binder_of(e)[0] for e in walk(*exprs, *before) if e.op in ("sum_for", "stack_for"))
    names: dict[Expr, frozenset[str]] = {}
    costly: dict[Expr, bool] = {}
    for e in walk(*before):
        costly[e] = e.op in COSTLY or any(costly[a] for a in e.args)

    def leaf(e: Expr) -> Expr | None:
        if e not in known or e.rank > rank or not costly[e] or not varies(e) or build.free_names(e, names) & bound:
            return None
        if e not in found:
            found[e] = sym(f"{prefix}{len(found)}", Role.HOISTED, e.shape, e.span)
        return found[e]

    results = tuple(rebuild(e, leaf, remake) for e in exprs)
    return results, tuple((s, e) for e, s in found.items())
