"""Normal form of a differential equation: a first-order system dx/dt = f(x, t) from x(t₀), of states of any shapes.

Higher orders are reduced by states for the lower derivatives. States that feed no rate, their own included, are
integrals; they come last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.model import Block, Equation
from implicitdsl.ir.nodes import Expr, Role, depends, node, rebuild, sym, symbols, walk
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import remake

from .normal import Expand, unchanged
from .terms import terms


@dataclass(frozen=True, slots=True)
class Evolution:
    """dstates/dvariable = rates, states = initial at `start`; integrated to `end`, or until an event.

    keys      for each state the node that a spec writes for it: an unknown, or `deriv` of one
    integrals how many of the last states feed no rate
    events    (op, g): the integration ends where g = 0 ("="), or falls ("<=") or rises (">=") to it
    kinks     times at which the rates jump, as `jump_t` names them
    """

    variable: Expr
    start: Expr
    end: Expr
    states: tuple[Expr, ...]
    rates: tuple[Expr, ...]
    initial: tuple[Expr, ...]
    keys: tuple[Expr, ...]
    integrals: int
    events: tuple[tuple[str, Expr], ...] = ()
    kinks: Expr | None = None

    def __str__(self) -> str:
        return "first order in " + ", ".join(show(s) for s in self.states)


KINKS = "jump_t"
"""The option that names kinks."""


class GapError(Exception):
    """What stands in the way of a normal form."""


def evolution(block: Block, expand: Expand = unchanged) -> Evolution:
    """The normal form of an "ode" block. Raises GapError with what has none."""
    if len(block.domains) != 1:
        names = " and ".join(f"`{d.name}`" for d in block.domains)
        raise GapError(f"one block evolves by {names}; write a block for each")
    t = block.domains[0].node
    unknowns = frozenset(s.node for s in block.unknowns)
    expand = _own_kept(expand, unknowns)
    moving: list[tuple[Equation, Expr, Expr]] = []
    conditions: list[tuple[Expr, Expr]] = []
    for e in block.equations:
        if _is_condition(e.lhs, unknowns):
            conditions.append((e.lhs, expand(e.rhs)))
        elif _is_condition(e.rhs, unknowns):
            conditions.append((e.rhs, expand(e.lhs)))
        else:
            moving.append((e, expand(e.lhs), expand(e.rhs)))
    orders: dict[Expr, int] = {s.node: 0 for s in block.unknowns}
    for _, lhs, rhs in moving:
        for n in walk(lhs, rhs):
            if n.op == "deriv" and n.attrs[1] == t.name and n.args[0] in orders:
                order = n.attrs[0]
                assert isinstance(order, int)
                orders[n.args[0]] = max(orders[n.args[0]], order)
    for u, order in orders.items():
        if order == 0:
            raise GapError(f"`{show(u)}` has no derivative: an algebraic equation beside differential ones")
    highest = {build.deriv(u, order, t.name): u for u, order in orders.items()}
    solved = _explicit(moving, highest)
    start, values = _conditions(conditions, expand)
    lo, hi = expand(block.domains[0].lo), expand(block.domains[0].hi)
    if start is None or start is lo:
        begin, end = lo, hi
    elif start is hi:
        begin, end = hi, lo
    else:
        raise GapError(f"conditions at {show(start)}, which is no end of the interval")
    keys = [key for u, order in orders.items() for key in (u, *(build.deriv(u, k, t.name) for k in range(1, order)))]
    states = [k if k.op == "sym" else sym(show(k), Role.UNKNOWN, k.shape) for k in keys]
    names = dict(zip(keys, states, strict=True))
    names |= {node("at", (u, begin), (t.name,), u.shape): values[u] for u in orders if u in values}
    for key in keys:
        if key not in values:
            raise GapError(f"`{show(key)}` has no initial value")
    rates: list[Expr] = []
    for key in keys:
        u, order = (key, 0) if key.op == "sym" else (key.args[0], int(str(key.attrs[0])))
        above = build.deriv(u, order + 1, t.name)
        rate = names[above] if above in names else _renamed(solved[above], names)
        rates.append(rate if rate.shape == key.shape else build.fill(rate, key.shape))
    accelerations = {d: _renamed(e, names) for d, e in solved.items()}
    events: list[tuple[str, Expr]] = []
    for q in block.until:
        g = build.sub(expand(q.lhs), expand(q.rhs))
        if g.rank:
            raise GapError(f"the event `{show(q.lhs)} {q.op} {show(q.rhs)}` is not a number")
        events.append((q.op, _renamed(_renamed(g, accelerations), names)))
    for e in (*rates, *(g for _, g in events)):
        late = next((n for n in walk(e) if n.op == "at" and n.args[0] in (*orders, *keys)), None)
        if late is not None:
            raise GapError(f"`{show(late)}` in an equation: the state at another time")
    initial = [values[k] if values[k].shape == k.shape else build.fill(values[k], k.shape) for k in keys]
    kinks = None if block.wishes.forward is None else block.wishes.forward.get(KINKS)
    form = _ordered(t, begin, end, states, rates, initial, keys, events)
    return replace(form, kinks=expand(kinks)) if isinstance(kinks, Expr) else form


def _own_kept(expand: Expand, unknowns: frozenset[Expr]) -> Expand:
    """`expand` that leaves alone derivatives of the block's own unknowns: elsewhere these are the ones at its end."""

    def kept(e: Expr) -> Expr:
        own = [n for n in walk(e) if n.op == "deriv" and n.args[0] in unknowns]
        names = {n: sym(f"~{n.args[0].name}_{n.attrs[0]}", Role.UNKNOWN, n.shape) for n in own}
        return _renamed(expand(_renamed(e, names)), {s: n for n, s in names.items()})

    return kept


def _renamed(e: Expr, names: Mapping[Expr, Expr]) -> Expr:
    return rebuild(e, lambda n: names.get(n), remake)


def _ordered(
    t: Expr,
    start: Expr,
    end: Expr,
    states: Sequence[Expr],
    rates: Sequence[Expr],
    initial: Sequence[Expr],
    keys: Sequence[Expr],
    events: Sequence[tuple[str, Expr]],
) -> Evolution:
    """Integrals last; where every state is one, none counts as such."""
    read = symbols(*rates, *(g for _, g in events))
    order = sorted(range(len(states)), key=lambda i: states[i] not in read)
    integrals = sum(s not in read for s in states) % len(states)

    def sorted_(items: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(items[i] for i in order)

    return Evolution(
        t, start, end, sorted_(states), sorted_(rates), sorted_(initial), sorted_(keys), integrals, tuple(events)
    )


def _is_condition(e: Expr, unknowns: frozenset[Expr]) -> bool:
    """`z(0)` or `dq/dt(0)`."""
    return e.op == "at" and (e.args[0].args[0] if e.args[0].op == "deriv" else e.args[0]) in unknowns


def _conditions(found: Sequence[tuple[Expr, Expr]], expand: Expand) -> tuple[Expr | None, dict[Expr, Expr]]:
    """Where the conditions are, and the value of each unknown or derivative there."""
    start: Expr | None = None
    values: dict[Expr, Expr] = {}
    for side, value in found:
        place = expand(side.args[1])
        if start is not None and place is not start:
            raise GapError(f"conditions at {show(start)} and at {show(place)}: a boundary value problem")
        start, values[side.args[0]] = place, value
    return start, values


def _explicit(moving: Sequence[tuple[Equation, Expr, Expr]], highest: Mapping[Expr, Expr]) -> dict[Expr, Expr]:
    """The highest derivatives, each by the states. Equations that hold several are solved one after the other."""
    solved: dict[Expr, Expr] = {}
    left = list(moving)
    while left:
        for k, (_, lhs, rhs) in enumerate(left):
            lhs, rhs = _renamed(lhs, solved), _renamed(rhs, solved)
            open_ = [d for d in highest if d not in solved and d in set(walk(lhs, rhs))]
            if len(open_) == 1 and (value := _isolated(lhs, rhs, open_[0])) is not None:
                solved[open_[0]] = value
                del left[k]
                break
        else:
            e = left[0][0]
            raise GapError(f"`{show(e.lhs)} = {show(e.rhs)}` is not solved for one derivative")
    for d, u in highest.items():
        if d not in solved:
            raise GapError(f"no equation gives `{show(d)}` of `{show(u)}`")
    return solved


def _isolated(lhs: Expr, rhs: Expr, d: Expr) -> Expr | None:
    """The value of d where lhs = rhs holds it once, alone or times a factor: `d = e`, `m d + k q = e`, `M d = e`."""
    for side, other in ((lhs, rhs), (rhs, lhs)):
        if side is d and d not in set(walk(other)):
            return other
    shape = lhs.shape if lhs.rank >= rhs.rank else rhs.shape
    wide = [e if e.shape == shape else build.fill(e, shape) for e in (lhs, rhs)]
    parts = terms(build.sub(wide[0], wide[1]))
    with_d = [(c, e) for c, e in parts if d in set(walk(e))]
    if len(with_d) != 1:
        return None
    c, e = with_d[0]
    rest = build.zeros(shape)
    for factor, term in parts:
        if term is not e:
            rest = build.add(rest, build.mul(build.num(-factor / c), term))
    if e is d:
        return rest
    if e.op in ("mul", "matmul") and d in e.args and e.args[0] is not e.args[1]:
        other = e.args[0] if e.args[1] is d else e.args[1]
        if d in set(walk(other)):
            return None
        if e.op == "mul" and e.shape == d.shape:
            return build.div(rest, other)
        if e.op == "matmul" and e.args[1] is d and other.rank == 2:
            return build.matmul(build.call("inv", (other,), other.shape), rest)
    if e.op == "div" and e.args[0] is d and not depends(e.args[1], {d}):
        return build.mul(rest, e.args[1])
    return None
