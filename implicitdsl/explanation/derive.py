"""The backward equations of a root block, by `calculus.vjp` on its step or residual.

Fixed points u = G(u; a), with w the gradient of the loss by u:   v = w + (∂G/∂u)ᵀ v,   ā = (∂G/∂a)ᵀ v.
Roots F(u; a) = 0:                                               (∂F/∂u)ᵀ v = w,       ā = −(∂F/∂a)ᵀ v.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from implicitdsl.calculus import simplify, vjp
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.function import Function, Functions
from implicitdsl.ir.nodes import Expr, Role, node, rebuild, same_with, substitute, sym, symbols, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .symbols import barred, free_name

Formula = tuple[Expr, Expr]
"""left = right"""

OWN_DERIVATIVE = frozenset(("exp", "sin", "cos", "abs", "sqrt", "log"))
"""Functions whose derivative is shorter written out than as f'."""

SHARED = 4
"""A product with the adjoint that is read so often is given a name."""
LONG = 30
"""So is, a little earlier, whatever is longer than this."""
LEAVES = frozenset(("sym", "num", "dim", "zeros", "ones", "eye"))


@dataclass(frozen=True)
class Derivation:
    """`incoming`: gradients w of the loss by the unknowns; `adjoints`: the solutions v of the backward equations."""

    incoming: tuple[Expr, ...]
    adjoints: tuple[Expr, ...]
    equations: tuple[Formula, ...]
    named: tuple[Formula, ...]
    cotangents: tuple[Formula, ...]
    slopes: tuple[Formula, ...]


def derive(system: System, wanted: Sequence[Expr], functions: Functions, fixed_point: bool) -> Derivation:
    """The backward pass of a system for the symbols `wanted`; `fixed_point` uses its step, else its residual."""
    table = primed(functions)
    taken = {e.name for e in symbols(*system.residual)} | {e.name for e in wanted}
    incoming = _fresh(system.unknowns, "w", "g", taken)
    adjoints = _fresh(system.unknowns, "u", "v", taken)
    values = system.step if fixed_point and system.step is not None else system.residual

    def pulled(wrt: Expr) -> Expr:
        total = build.zeros(wrt.shape)
        for value, adjoint in zip(values, adjoints, strict=True):
            total = build.add(total, vjp(value, adjoint, (wrt,), table)[0])
        return simplify(total)

    equations: list[Formula] = []
    for unknown, w, v in zip(system.unknowns, incoming, adjoints, strict=True):
        back = pulled(unknown)
        equations.append((v, build.add(w, back)) if fixed_point else (back, w))
    sign = (lambda e: e) if fixed_point else build.neg
    cotangents = [(barred(a), simplify(sign(pulled(a)))) for a in wanted]
    cotangents = [(a, e) for a, e in cotangents if not build.is_zero(e)]
    named, shown = _shared([*equations, *cotangents], adjoints, taken)
    count = len(equations)
    shown = [(_last(left, adjoints), _last(right, adjoints)) for left, right in shown]
    named = tuple((name, _last(e, adjoints)) for name, e in named)
    primes = slopes([e for pair in (*shown, *named) for e in pair], functions, taken)
    return Derivation(incoming, adjoints, tuple(shown[:count]), named, tuple(shown[count:]), primes)


def _fresh(unknowns: Sequence[Expr], letter: str, other: str, taken: set[str]) -> tuple[Expr, ...]:
    """One symbol an unknown: `w`, or `w_z` and `w_v` of several."""
    if len(unknowns) == 1:
        name = free_name((letter, other, f"{letter}_{unknowns[0].name}"), taken)
        return (sym(name, Role.COTANGENT, unknowns[0].shape),)
    names = [free_name((f"{letter}_{z.name}", f"{other}_{z.name}"), taken) for z in unknowns]
    return tuple(sym(name, Role.COTANGENT, z.shape) for name, z in zip(names, unknowns, strict=True))


def primed(functions: Functions) -> dict[str, Function]:
    """The functions with derivatives written f'(x) ∘ t, and f''(x) ∘ t of these, where f is elementwise in one
    argument."""
    table = {name: replace(f, jvp=_prime) if _has_prime(f) else f for name, f in functions.items()}
    firsts = {f"{name}'": Function(f"{name}'", (1, 1), jvp=_prime, elementwise=True) for name in table}
    return {**table, **firsts}


def _has_prime(f: Function) -> bool:
    return f.elementwise and f.arity == (1, 1) and f.jvp is not None and not f.internal and f.name not in OWN_DERIVATIVE


def _prime(call: Expr, tangents: Sequence[Expr | None]) -> Expr:
    (t,) = tangents
    return build.zeros(call.shape) if t is None else build.mul(_slope(call), t)


def _slope(call: Expr) -> Expr:
    return node("call", call.args, (call.name + "'",), call.shape)


def _last(e: Expr, adjoints: Sequence[Expr]) -> Expr:
    """Elementwise products with the adjoint as their last factor, as one writes them."""

    def make(x: Expr, args: tuple[Expr, ...]) -> Expr:
        if x.op == "mul" and args[0] in adjoints and args[1] not in adjoints:
            args = args[::-1]
        return same_with(x, args)

    return rebuild(e, lambda x: None, lambda x, args: make(x, args), everywhere=True)


def slopes(exprs: Sequence[Expr], functions: Functions, taken: set[str]) -> tuple[Formula, ...]:
    """What each f' and f'' is: tanh'(s) = 1 - tanh(s)²."""
    names = sorted({e.name for e in walk(*exprs) if e.op == "call" and e.name.endswith("'")})
    s = sym(free_name(("s", "t", "x"), taken), Role.BOUND)
    found: list[Formula] = []
    for name in names:
        value = build.call(name.rstrip("'"), (s,), ())
        for _ in range(name.count("'")):
            value = simplify(vjp(value, build.num(1.0), (s,), functions)[0])
        found.append((build.call(name, (s,), ()), value))
    return tuple(found)


def _shared(
    formulas: list[Formula], adjoints: Sequence[Expr], taken: set[str]
) -> tuple[tuple[Formula, ...], list[Formula]]:
    """Names for what would be read again and again: products with an adjoint, then long sub-expressions."""
    moving = frozenset(adjoints)
    products = _name(formulas, lambda e: e.op == "mul" and bool(symbols(e) & moving), SHARED, ("s", "r", "q"), taken)
    formulas = [(_replaced(left, products), _replaced(right, products)) for left, right in formulas]
    named = [(s, e) for e, s in products.items()]
    everything = [*formulas, *named]
    whole = frozenset(products)
    long = _name(everything, lambda e: e not in whole and len(show(e)) > LONG, SHARED - 1, ("a", "h", "d"), taken)
    everything = [(_replaced(left, long), _replaced(right, long)) for left, right in everything]
    count = len(formulas)
    return (*everything[count:], *((s, e) for e, s in long.items())), everything[:count]


def _name(
    formulas: Sequence[Formula], fits: Callable[[Expr], bool], least: int, wishes: Sequence[str], taken: set[str]
) -> dict[Expr, Expr]:
    """Symbols for the largest tensors that fit and are read so often, none inside another or bound to a loop."""
    uses: dict[Expr, int] = {}
    for formula in formulas:
        for side in formula:
            uses[side] = uses.get(side, 0) + 1
            for part in walk(side):
                for a in part.args:
                    uses[a] = uses.get(a, 0) + 1
    nodes = set(walk(*(side for formula in formulas for side in formula)))
    bound = {build.binder_of(e)[0] for e in nodes if e.op in ("sum_for", "stack_for")}
    frequent = [e for e, count in uses.items() if count >= least and e.op not in LEAVES and fits(e)]
    frequent = [e for e in frequent if not build.free_names(e) & bound]
    largest = [e for e in frequent if not any(e is not f and e in set(walk(f)) for f in frequent)]
    return {e: sym(free_name(wishes, taken), Role.COTANGENT, e.shape) for e in largest}


def _replaced(e: Expr, names: Mapping[Expr, Expr]) -> Expr:
    return rebuild(e, lambda x: names.get(x), same_with)


def unhoisted(system: System) -> System:
    """The system with its invariants written out."""
    values = dict(system.hoisted)
    step = None if system.step is None else tuple(substitute(e, values) for e in system.step)
    return System(system.unknowns, tuple(substitute(e, values) for e in system.residual), step)
