"""What is computed between solves: definitions as soon as they can be, outputs at the end, as generated functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.ir.function import Function
from implicitdsl.ir.model import Block, Model
from implicitdsl.ir.nodes import Expr, Role, rebuild, same_with, sym, symbols, walk

from .codegen import generate, opaques_of


@dataclass(frozen=True)
class Query:
    """A value that only the solve of a block knows: an unknown at a point (`z(1)`), or a dual. `name` is its key."""

    name: str
    node: Expr


@dataclass(frozen=True)
class Step:
    """A generated function: its name, the names of its tensor inputs and functions, and of its results."""

    function: str
    inputs: tuple[str, ...]
    opaques: tuple[str, ...]
    dims: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Stages:
    """`before[k]` runs before block k; `outputs` at the end. `text` is the source of them all."""

    before: tuple[Step | None, ...]
    outputs: Step
    text: str


def queries(model: Model) -> tuple[tuple[Query, ...], ...]:
    """For each block the values that later blocks, definitions and outputs ask of it, in order of appearance."""
    later = [[*_block_roots(b)] for b in model.blocks]
    tail = [value for _, value in model.definitions] + [o.expr for o in model.outputs]
    found: list[tuple[Query, ...]] = []
    for k, block in enumerate(model.blocks):
        own: dict[Expr, str] = {}
        for e in walk(*[root for roots in later[k + 1 :] for root in roots], *tail):
            if e not in own and _asks(e, block):
                stem = f"{e.args[0].name}_at" if e.op == "at" else f"dual_{e.attrs[0]}"
                own[e] = f"~{stem}_{len(own)}"  # no user's name
        found.append(tuple(Query(name, e) for e, name in own.items()))
    return tuple(found)


def _asks(e: Expr, block: Block) -> bool:
    if e.op == "at":
        return any(e.args[0] is u.node for u in block.unknowns)
    return e.op == "dual" and any(q.label == e.attrs[0] for q in block.equations)


def _block_roots(block: Block) -> list[Expr]:
    roots = [side for q in (*block.equations, *block.until) for side in (q.lhs, q.rhs)]
    roots += [end for d in block.domains for end in (d.lo, d.hi)]
    if block.objective is not None:
        roots.append(block.objective)
    if isinstance(block.wishes.start, Expr):
        roots.append(block.wishes.start)
    return roots


def answered(root: Expr, asked: Mapping[Expr, Expr]) -> Expr:
    """The expression with queries replaced by the symbols that hold their answers."""
    return rebuild(root, lambda e: asked.get(e), same_with)


def make(model: Model, functions: Mapping[str, Function], sizes: Mapping[str, int], dims: Sequence[str]) -> Stages:
    """Generate the code between the solves. `dims` are passed as arguments: sizes that are not known yet."""
    per_block = queries(model)
    asked = {q.node: sym(q.name, Role.HOISTED, q.node.shape) for group in per_block for q in group}
    definitions = {s: answered(v, asked) for s, v in model.definitions}
    outputs = [answered(o.expr, asked) for o in model.outputs]
    ready = {s.node for s in (*model.givens, *model.params, *model.consts)}
    texts: list[str] = []
    before: list[Step | None] = []
    roots = [[answered(r, asked) for r in _block_roots(b)] for b in model.blocks]
    for k, block in enumerate(model.blocks):
        wanted = _reached([r for later in roots[k:] for r in later] + outputs, definitions)
        now = {s: definitions[s] for s in _computable(definitions, ready, wanted)}
        before.append(None)
        if now:
            before[-1], text = _function(f"before_{k + 1}", list(now), list(now), now, functions, sizes, dims)
            texts.append(text)
        ready |= {*now, *(u.node for u in block.unknowns), *(d.node for d in block.domains)}
        ready |= {asked[q.node] for q in per_block[k]}
    rest = {s: v for s, v in definitions.items() if s not in ready}
    named = [sym(o.name, Role.DEFINITION, o.expr.shape) for o in model.outputs]
    last, text = _function("outputs", named, outputs, rest, functions, sizes, dims)
    return Stages(tuple(before), last, "\n\n".join([*texts, text]))


def _reached(roots: Sequence[Expr], definitions: Mapping[Expr, Expr]) -> set[Expr]:
    """The definitions that the roots need, through others."""
    found: set[Expr] = set()
    stack = list(roots)
    while stack:
        for s in symbols(stack.pop()):
            if s in definitions and s not in found:
                found.add(s)
                stack.append(definitions[s])
    return found


def _computable(definitions: Mapping[Expr, Expr], ready: set[Expr], wanted: set[Expr]) -> list[Expr]:
    """The wanted definitions that follow from what is ready, in order."""
    have = set(ready)
    now: list[Expr] = []
    for s, value in definitions.items():
        if s in wanted and s not in have and symbols(value) <= have:
            have.add(s)
            now.append(s)
    return now


def _leaves(values: Sequence[Expr], definitions: Mapping[Expr, Expr]) -> list[Expr]:
    """The symbols that values need and that no definition gives, in order of appearance."""
    found: dict[Expr, None] = {}
    for value in values:
        for e in walk(value):
            if e.op == "sym":
                for leaf in _leaves([definitions[e]], definitions) if e in definitions else [e]:
                    found.setdefault(leaf)
    return list(found)


def _function(
    name: str,
    results: Sequence[Expr],
    values: Sequence[Expr],
    definitions: Mapping[Expr, Expr],
    functions: Mapping[str, Function],
    sizes: Mapping[str, int],
    dims: Sequence[str],
) -> tuple[Step, str]:
    """The function of the values, which are returned under the names of `results`."""
    reached = _reached(values, definitions)
    given = [(s, v) for s, v in definitions.items() if s in reached]
    leaves = _leaves(values, definitions)
    called = opaques_of(*values, *(v for _, v in given))
    text = generate(name, leaves, values, functions, sizes, definitions=given, opaques=called, dims=dims)
    return Step(name, tuple(s.name for s in leaves), called, tuple(dims), tuple(s.name for s in results)), text
