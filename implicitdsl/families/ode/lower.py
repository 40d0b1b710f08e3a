"""From the plan of a differential equation to what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from implicitdsl.analysis.evolution import KINKS, Evolution
from implicitdsl.backward.failure import Failures
from implicitdsl.backward.ode_solve import Backsolve, Backward, Checkpointed, Reversible, UnrolledSteps
from implicitdsl.families.call import Call
from implicitdsl.ground.methods import Method as Described
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Block, Model
from implicitdsl.ir.nodes import Expr, Role, symbols, walk
from implicitdsl.ir.plan import BlockPlan, Choice
from implicitdsl.ir.queries import queries, roots
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.ode.control import Control
from implicitdsl.solvers.ode.dirk import IMPLICIT_EULER, KVAERNO5, TRAPEZOID, Dirk
from implicitdsl.solvers.ode.explicit import Explicit
from implicitdsl.solvers.ode.method import Method
from implicitdsl.solvers.ode.rosenbrock import Rodas5P
from implicitdsl.solvers.ode.symplectic import YOSHIDA, Symplectic
from implicitdsl.solvers.ode.tableaux import TABLEAUX

from .block import OdeBlock
from .generate import ordered, write
from .recipe import Asked, Recipe, Spectral

EXPM = "expm"
SYMPLECTIC = {"leapfrog": (1.0,), "yoshida4": YOSHIDA}
BACKWARD: Mapping[str, Callable[..., Backward]] = {
    "checkpointed": Checkpointed,
    "backsolve": Backsolve,
    "unrolled": UnrolledSteps,
    "reversible": Reversible,
}
IMPLICIT = {t.name: t for t in (IMPLICIT_EULER, TRAPEZOID, KVAERNO5)}


class Language(Protocol):
    """What lowering asks of a language: its functions, and methods by name."""

    @property
    def function_table(self) -> Functions: ...

    def method(self, sentence: str, role: str, name: str) -> Described | None: ...


def lower(parts: Sequence[BlockPlan], model: Model, sizes: Mapping[str, int], language: Language) -> OdeBlock:
    """The runner of one `find z(t)`."""
    (part,) = parts
    return OdeBlock(recipe(part, model, sizes, language))


def source(part: BlockPlan, language: Language) -> str:
    """The generated Python of a block for any sizes; dimensions that no input shows are further arguments."""
    form = form_of(part)
    times = [form.start, form.end]
    like = ordered([*form.initial, *form.rates, *times], exclude=(*form.states, form.variable))[:1]
    try:
        return write(form, times, like, language.function_table, {}).text
    except KeyError:
        dims = sorted({n for s in form.states for d in s.shape for n in d.names})
        return write(form, times, like, language.function_table, {}, dims).text


def form_of(part: BlockPlan) -> Evolution:
    """The normal form, which the front end has made sure of."""
    fact = part.fact("evolution")
    assert fact is not None
    form = fact.value
    assert isinstance(form, Evolution)
    return form


def recipe(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> Recipe:
    """Generate the code of a block and make its methods."""
    form = form_of(part)
    block = next(b for b in model.blocks if b is part.block)
    asked, times, at_end = _asked(block, model, form)
    like = [s.node for s in (*model.givens, *model.params, *model.consts)][:1]
    written = write(form, times, like, language.function_table, sizes)
    states = tuple((s, tuple(d.evaluate(sizes) for d in s.shape)) for s in form.states)
    measured = sum(_size(shape) for _, shape in states[: len(states) - form.integrals])
    ladder = part.forward
    exact = ladder[0].method == EXPM
    ladder = ladder[:1] if exact else tuple(c for c in ladder if c.method != EXPM)
    title = model.name or "layer"
    line = model.source.position(part.block.equations[0].span.start)[0]
    return Recipe(
        program=Program(f"{title} {', '.join(u.name for u in block.unknowns)}", written.text),
        rate=Call("rate", keys(written.inputs), written.opaques),
        ranks=tuple(s.rank for s in written.inputs),
        moving=written.moving,
        invariants=Call("invariants", keys(written.outer), written.outer_opaques) if written.hoisted else None,
        hoisted=keys(written.hoisted),
        probes=_probes(form, sizes),
        start=Call("start", keys(written.start), written.start_opaques),
        times=Call("times", keys(written.times)),
        time_ranks=tuple(t.rank for t in times),
        states=tuple(shape for _, shape in states),
        names=tuple((k.name if k.op == "sym" else None) for k in form.keys),
        variable=form.variable.name,
        asked=asked,
        at_end=at_end,
        measured=measured if form.integrals else None,
        methods=() if exact else tuple(made(c, part, states) for c in ladder),
        labels=tuple(c.method for c in ladder),
        events=tuple(op for op, _ in form.events),
        control=Control() if exact else _control(ladder[0]),
        backward=_backward(part.backward),
        failures=Failures(part.block.wishes.on_failure or "warn", f"{model.source.name}:{line}"),
        source=model.source,
        places={o.name: o.span for o in model.opaques if o.span is not None},
        kinks=None
        if form.kinks is None
        else (Call("kinks", keys(written.kinks), written.kinks_opaques), form.kinks.rank),
        spectral=None
        if not exact or written.scale is None
        else Spectral(
            Call("scale", keys(written.scale)),
            Call("constant", keys(written.constant)),
            keys([s for s in written.constant if s.role is Role.CONST]),
            written.forced,
        ),
    )


def _probes(form: Evolution, sizes: Mapping[str, int]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Keys and shapes of the random signs that estimates of a divergence need."""
    used = symbols(*form.rates, *form.initial, *(g for _, g in form.events))
    found = sorted((s for s in used if s.role is Role.PROBE), key=lambda s: s.name)
    return tuple((key, tuple(d.evaluate(sizes) for d in s.shape)) for key, s in zip(keys(found), found, strict=True))


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def keys(found: Sequence[Expr]) -> tuple[str, ...]:
    """The places of symbols among the values of a call; an invariant must not take the place of a user's name."""
    own = (Role.HOISTED, Role.PROBE)
    return tuple(f"~{s.name}" if s.role in own and not s.name.startswith("~") else s.name for s in found)


def _asked(block: Block, model: Model, form: Evolution) -> tuple[tuple[Asked, ...], list[Expr], bool]:
    """(what is asked of the block, the times start, end, …, whether the end state itself is wanted)."""
    (own,) = [q for b, q in zip(model.blocks, queries(model), strict=True) if b is block]
    times = [form.start, form.end]
    found: list[Asked] = []
    for q in own:
        key = q.node.args[0] if q.node.op == "at" else q.node
        time = q.node.args[1] if q.node.op == "at" else form.end
        if time is form.variable:
            time = form.end
        if time not in times:
            times.append(time)
        state = key if key in form.keys else _below(key)
        found.append(Asked(q.name, form.keys.index(state), times.index(time), time.rank == 1, key not in form.keys))
    others = [r for b in model.blocks if b is not block for r in roots(b)]
    others += [v for _, v in model.definitions] + [o.expr for o in model.outputs]
    ends = {u.node for u in block.unknowns} | {form.variable}
    at_end = not found or any(e in ends for e in _bare(others))
    return tuple(found), times, at_end


def _below(key: Expr) -> Expr:
    """The state whose rate is the derivative `key`."""
    u, order, t = key.args[0], key.attrs[0], key.attrs[1]
    assert isinstance(order, int)
    return u if order == 1 else build.deriv(u, order - 1, str(t))


def _bare(found: Sequence[Expr]) -> list[Expr]:
    """The symbols that stand outside `z(1)` and `dz/dt`."""
    inside = {e.args[0] for e in walk(*found) if e.op in ("at", "deriv")}
    free: list[Expr] = []
    for e in walk(*found):
        if e.op not in ("at", "deriv"):
            free += [x for x in e.args if x.op == "sym"]
    return free + [r for r in found if r.op == "sym" and r not in inside]


def made(choice: Choice, part: BlockPlan, states: Sequence[tuple[Expr, tuple[int, ...]]]) -> Method:
    """The method that a plan names."""
    if choice.method in SYMPLECTIC:
        return Symplectic(_positions(part, states), SYMPLECTIC[choice.method])
    if choice.method == "rodas5p":
        return Rodas5P()
    if choice.method in IMPLICIT:
        return Dirk(IMPLICIT[choice.method])
    return Explicit(TABLEAUX[choice.method])


def _positions(part: BlockPlan, states: Sequence[tuple[Expr, tuple[int, ...]]]) -> tuple[int, ...]:
    """The entries of the packed state that are positions: the group of the first unknown."""
    fact = part.fact("separable")
    assert fact is not None
    groups = fact.value
    assert isinstance(groups, tuple)
    found: list[int] = []
    at = 0
    for k, (_, shape) in enumerate(states):
        if k in groups[0]:
            found += range(at, at + _size(shape))
        at += _size(shape)
    return tuple(found)


def _control(choice: Choice) -> Control:
    return Control(**{k: v for k, v in choice.options if v is not None and k != KINKS})  # pyright: ignore[reportArgumentType]


def _backward(choice: Choice) -> Backward:
    options: dict[str, Any] = dict(choice.options)
    return BACKWARD[choice.method](**options)
