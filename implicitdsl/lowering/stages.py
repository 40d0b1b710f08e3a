"""What is computed between solves: definitions as soon as they can be, outputs at the end, as generated functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.ir.function import Function
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr, Role, sym, symbols, walk
from implicitdsl.ir.queries import answered, queries
from implicitdsl.ir.queries import roots as block_roots

from .codegen import generate, opaques_of


@dataclass(frozen=True)
class Step:
    """A generated function: its name, the names of its tensor inputs and functions, and of its results.

    `copies`: it returns its inputs as they are, in order, so need not be called.
    """

    function: str
    inputs: tuple[str, ...]
    opaques: tuple[str, ...]
    dims: tuple[str, ...]
    results: tuple[str, ...]
    copies: bool = False


@dataclass(frozen=True)
class Stages:
    """`before[k]` runs before block k; `outputs` at the end. `text` is the source of them all."""

    before: tuple[Step | None, ...]
    outputs: Step
    text: str


def make(model: Model, functions: Mapping[str, Function], sizes: Mapping[str, int], dims: Sequence[str]) -> Stages:
    """Generate the code between the solves. `dims` are passed as arguments: sizes that are not known yet."""
    per_block = queries(model)
    asked = {q.node: q.symbol for group in per_block for q in group}
    definitions = {s: answered(v, asked) for s, v in model.definitions}
    outputs = [answered(o.expr, asked) for o in model.outputs]
    ready = {s.node for s in (*model.givens, *model.params, *model.consts)}
    texts: list[str] = []
    before: list[Step | None] = []
    roots = [[answered(r, asked) for r in block_roots(b)] for b in model.blocks]
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
    names = tuple(s.name for s in leaves)
    return Step(name, names, called, tuple(dims), tuple(s.name for s in results), leaves == list(values)), text
