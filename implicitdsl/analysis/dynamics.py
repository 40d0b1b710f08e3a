"""Facts about a differential equation."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.model import Block
from implicitdsl.ir.nodes import symbols, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .affine import first_nonlinear
from .context import Context
from .evolution import Evolution, GapError, evolution
from .normal import Expand, unchanged
from .smoothness import smoothness


def dynamics(block: Block, about: Context, expand: Expand = unchanged) -> tuple[Fact, ...]:
    """`evolution` (the normal form; None and why there is none), `size`, `autonomous`, `linear`, `separable`,
    `smoothness`, `opaque`.
    """
    try:
        form = evolution(block, expand)
    except GapError as gap:
        return (Fact("evolution", None, (str(gap),)),)
    total = Dim(())
    for s in form.states:
        total = total + size_of(s.shape)
    return (
        Fact("evolution", form, ()),
        Fact("size", total, (f"the state is {total} numbers",)),
        _autonomous(form),
        _linear(form, about),
        _separable(form),
        smoothness(System(form.states, form.rates, None), about),
        _opaque(form),
    )


def _autonomous(form: Evolution) -> Fact:
    if form.variable in symbols(*form.rates):
        return Fact("autonomous", None, (f"{show(form.variable)} occurs explicitly",))
    return Fact("autonomous", True, (f"no rate contains {show(form.variable)} explicitly",))


def _linear(form: Evolution, about: Context) -> Fact:
    """`linear`: True for dx/dt = A x + h with A and h constant."""
    names = ", ".join(show(s) for s in form.states)
    if form.variable in symbols(*form.rates):
        return Fact("linear", None, (f"{show(form.variable)} occurs explicitly",))
    for rate in form.rates:
        found = first_nonlinear(rate, frozenset(form.states), about)
        if found is not None:
            return Fact("linear", None, (f"{show(found)} is not affine in {names}",))
    why = f"every rate is affine in {names} with constant coefficients"
    return Fact("linear", True, (why, "so the states are given by a matrix exponential"))


def _separable(form: Evolution) -> Fact:
    """`separable`: the positions of states that move by the others alone (q), where these move by q alone (p)."""
    places = {s: i for i, s in enumerate(form.states)}
    beside: dict[int, set[int]] = {i: set() for i in places.values()}
    for i, rate in enumerate(form.rates):
        for other in symbols(rate) & places.keys():
            beside[i].add(places[other])
            beside[places[other]].add(i)
    side: dict[int, int] = {}
    stack = [(i, 0) for i in sorted(beside, reverse=True)]
    while stack:  # a graph in two colours
        i, colour = stack.pop()
        if i in beside[i]:
            return Fact("separable", None, (f"the rate of {show(form.states[i])} contains it",))
        if i not in side:
            side[i] = colour
            stack += [(j, 1 - colour) for j in beside[i]]
    for i, others in beside.items():
        for j in others:
            if side[i] == side[j]:
                return Fact("separable", None, (f"{show(form.states[i])} and {show(form.states[j])} are in one group",))
    q = tuple(i for i, c in sorted(side.items()) if c == 0)
    p = tuple(i for i, c in sorted(side.items()) if c == 1)
    if not q or not p:
        return Fact("separable", None, ("the states do not fall into two groups that move each other",))
    first, second = (", ".join(show(form.states[i]) for i in group) for group in (q, p))
    return Fact("separable", (q, p), (f"{first} moves by {second} alone, and {second} by {first} alone",))


def _opaque(form: Evolution) -> Fact:
    names = tuple(dict.fromkeys(e.name for e in walk(*form.rates) if e.op == "apply"))
    if not names:
        return Fact("opaque", None, ("every function is one of the language",))
    return Fact("opaque", names, tuple(f"{name} is bound from Python" for name in names))
