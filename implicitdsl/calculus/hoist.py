"""Loop invariants: what does not depend on the unknowns is computed once, before the solve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, Role, rebuild, sym, walk
from implicitdsl.ir.remake import remake

LEAVES = frozenset(("sym", "num", "dim", "zeros", "ones", "eye"))
VIEWS = frozenset(("transpose", "index", "reshape", "diagonal", "neg"))
"""Free or nearly free of cost: not worth a variable when what they view is a leaf."""


def hoist(
    exprs: Sequence[Expr], on: Iterable[Expr], prefix: str = "c"
) -> tuple[tuple[Expr, ...], tuple[tuple[Expr, Expr], ...]]:
    """(expressions in which the largest parts that are free of `on` are symbols of Role.HOISTED, those symbols and
    parts).

    Sums and elementwise products are regrouped first, so that of `W z + U x + b` the sum `U x + b` is one invariant.
    Bare symbols, numbers and views of them stay, and what holds no symbol, whose dtype and device are those of the
    unknowns beside it; so does what depends on the index of a loop. Equal parts share one
    symbol. The parts are in an order in which they can be computed; none refers to another.
    """
    varies = Varies(on)
    regrouped = [_regroup(e, varies) for e in exprs]
    bound = frozenset(build.binder_of(e)[0] for e in walk(*regrouped) if e.op in ("sum_for", "stack_for"))
    names: dict[Expr, frozenset[str]] = {}
    found: dict[Expr, Expr] = {}

    def leaf(e: Expr) -> Expr | None:
        if varies(e) or _trivial(e) or _constant(e) or build.free_names(e, names) & bound:
            return None
        if e not in found:
            found[e] = sym(f"{prefix}{len(found)}", Role.HOISTED, e.shape, e.span)
        return found[e]

    results = tuple(rebuild(e, leaf, remake) for e in regrouped)
    return results, tuple((s, e) for e, s in found.items())


class Varies:
    """Whether one of some symbols occurs in a node; each node is looked at once."""

    def __init__(self, on: Iterable[Expr]) -> None:
        self.known = dict.fromkeys(on, True)

    def __call__(self, e: Expr) -> bool:
        stack = [e]
        while e not in self.known:
            x = stack[-1]
            waiting = [a for a in x.args if a not in self.known]
            if waiting:
                stack += waiting
                continue
            self.known.setdefault(x, any(self.known[a] for a in x.args))
            stack.pop()
        return self.known[e]


def _trivial(e: Expr) -> bool:
    while e.op in VIEWS:
        e = e.args[0]
    return e.op in LEAVES


def _constant(e: Expr) -> bool:
    return not any(x.op in ("sym", "apply") for x in walk(e))


def _regroup(root: Expr, varies: Varies) -> Expr:
    """Chains of + and of elementwise products with their invariant terms joined."""

    def make(e: Expr, args: tuple[Expr, ...]) -> Expr:
        e = remake(e, args)
        if e.op not in ("add", "mul") or not varies(e):
            return e
        chain = _chain(e)
        free = [x for x in chain if not varies(x)]
        if len(free) < 2:
            return e
        rest = [x for x in chain if varies(x)]
        if e.op == "add":
            return build.add(_fold(build.add, rest), _fold(build.add, free))
        return build.mul(_fold(build.mul, free), _fold(build.mul, rest))

    return rebuild(root, lambda e: None, make, everywhere=True)


def _chain(e: Expr) -> list[Expr]:
    """The operands of a chain of sums, or of products, all of e's shape or scalars."""
    operands: list[Expr] = []
    stack = [e]
    while stack:
        x = stack.pop()
        if x.op == e.op and (x.shape == e.shape or not x.rank):
            stack += reversed(x.args)
        elif e.op == "add" and x.op == "neg" and x.args[0].op == "add" and x.args[0].shape == e.shape:
            stack += [build.neg(a) for a in reversed(x.args[0].args)]
        else:
            operands.append(x)
    return operands


def _fold(join: Callable[[Expr, Expr], Expr], parts: Sequence[Expr]) -> Expr:
    """Scalars first, so that they are joined among themselves."""
    ordered = sorted(parts, key=lambda x: x.rank)
    total = ordered[0]
    for x in ordered[1:]:
        total = join(total, x)
    return total
