"""The last step: dimensions named, names accounted for (IMP101, 103, 104, 120, 203), the model put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Shape, show_shape
from implicitdsl.ir.model import Block, Domain, Equation, Model, Opaque, OutputValue, Symbol
from implicitdsl.ir.nodes import Expr, symbols, walk
from implicitdsl.syntax import ast

from .attempt import Attempt
from .blocks import symbol_of
from .context import suggest
from .report import nearest, unsafe
from .resolve import Finisher, name_dims
from .scope import Entity
from .shapes import is_flexible
from .structure import match
from .trees import descend


def assemble(tried: Attempt, later: set[str]) -> Model | None:
    """The model of an attempt, or None where it has errors."""
    scope, context, report = tried.scope, tried.context, tried.context.report
    bound_to_input = _inferable(tried)
    unresolved(tried, bound_to_input)
    entities = list(scope.entities("unknown", "given", "param", "const"))
    shapes = [e.node.shape for e in entities if e.node is not None]
    shapes += [s for e in scope.entities("fn", "layer") if e.opaque for s in (*e.opaque.args, *e.opaque.results)]
    shapes += [v.shape for v, _ in context.definition_order] + [o.expr.shape for o in tried.outputs]
    taken = set(scope.names) | {"t"}
    inferred = name_dims(context.dims, shapes, taken)
    undeclared_names(tried, later)
    finish = Finisher(context.dims, context.functions)
    for e in entities:
        if e.set is not None:
            e.set = finish.set(e.set)
    if report.errors or tried.layer.broken or context.incomplete:
        return None
    definitions = tuple((finish(s), finish(v)) for s, v in context.definition_order)
    blocks = [_block(p.block(w), finish) for p, w in zip(tried.blocks, tried.wishes, strict=True)]
    outputs = tuple(OutputValue(o.name, finish(o.expr), o.span) for o in tried.outputs)
    used = usage(tried, blocks, outputs, dict(definitions))
    if tried.context.bare:
        defaults(tried)
    header = [d.text for d in tried.layer.dims]

    def declared(*kinds: str) -> tuple[Symbol, ...]:
        return tuple(_symbol(e, finish) for e in scope.entities(*kinds) if e.node is not None and e.set is not None)

    return Model(
        tried.layer.name.text if tried.layer.name else None,
        (*header, *context.sets.new_dims, *inferred),
        declared("given"),
        declared("param"),
        declared("const"),
        tuple(_opaque(e, finish) for e in scope.entities("fn", "layer") if e.opaque is not None and e.name in used),
        definitions,
        tuple(_ordered(blocks, dict(definitions))),
        outputs,
        report.source,
        tried.layer.span,
        {finish.memo[raw]: span for raw, span in context.spans.items() if raw in finish.memo},
        tuple(replace(b, axis=context.dims.resolve(b.axis), rest=context.dims.resolve(b.rest)) for b in tried.bounds),
    )


def _symbol(e: Entity, finish: Finisher) -> Symbol:
    found = symbol_of(e)
    assert found is not None
    assert e.set is not None
    return Symbol(found.name, finish(found.node), finish.set(e.set), found.init, found.span, found.filled)


def _opaque(e: Entity, finish: Finisher) -> Opaque:
    o = e.opaque
    assert o is not None
    resolve = finish.dims.shape
    sizes = tuple((n, finish.dims.resolve(d)) for n, d in o.sizes)
    return Opaque(o.name, tuple(map(resolve, o.args)), tuple(map(resolve, o.results)), o.path, o.layer, sizes, o.span)


def _equation(e: Equation, finish: Finisher) -> Equation:
    index = tuple((n, finish.dim(lo), finish.dim(hi)) for n, lo, hi in e.index)
    return Equation(finish(e.lhs), e.op, finish(e.rhs), e.span, e.label, index, finish.set(e.set) if e.set else None)


def _block(b: Block, finish: Finisher) -> Block:
    unknowns = tuple(Symbol(u.name, finish(u.node), finish.set(u.set), u.init, u.span, u.filled) for u in b.unknowns)
    domains = tuple(
        Domain(d.name, d.node, finish(d.lo), finish(d.hi), finish.dim(d.points) if d.points else None, d.periodic)
        for d in b.domains
    )
    return Block(
        b.sentence,
        unknowns,
        tuple(_equation(e, finish) for e in b.equations),
        b.span,
        finish(b.objective) if b.objective is not None else None,
        b.sense,
        domains,
        tuple(_equation(e, finish) for e in b.until),
        b.wishes.mapped(finish),
    )


def block_roots(b: Block) -> list[Expr]:
    """Every expression of a block."""
    roots = [side for e in (*b.equations, *b.until) for side in (e.lhs, e.rhs)]
    roots += [b.objective] if b.objective is not None else []
    roots += [end for d in b.domains for end in (d.lo, d.hi)]
    return roots + list(b.wishes.exprs)


def reached(roots: list[Expr], definitions: Mapping[Expr, Expr]) -> set[Expr]:
    """Symbols that occur, also through definitions."""
    found: set[Expr] = set()
    todo = list(roots)
    while todo:
        for s in symbols(todo.pop()):
            if s not in found:
                found.add(s)
                if s in definitions:
                    todo.append(definitions[s])
    return found


def _ordered(blocks: list[Block], definitions: Mapping[Expr, Expr]) -> list[Block]:
    """Blocks after those whose unknowns they contain; in order of writing where free."""
    owner = {u.node: i for i, b in enumerate(blocks) for u in b.unknowns}
    needs = [{owner[s] for s in reached(block_roots(b), definitions) if s in owner} - {i} for i, b in enumerate(blocks)]
    done: list[int] = []
    while len(done) < len(blocks):
        ready = next((i for i in range(len(blocks)) if i not in done and needs[i] <= set(done)), None)
        if ready is None:  # blocks that need each other: the checker's caller solves them in order of writing
            ready = next(i for i in range(len(blocks)) if i not in done)
        done.append(ready)
    return [blocks[i] for i in done]


def usage(
    tried: Attempt, blocks: list[Block], outputs: tuple[OutputValue, ...], definitions: Mapping[Expr, Expr]
) -> set[str]:
    """IMP103 and IMP104; returns the names of fns and sub-layers in use."""
    report = tried.context.report
    live = reached([o.expr for o in outputs], definitions)
    labels = {str(n.attrs[0]) for o in outputs for n in walk(o.expr) if n.op == "dual"}
    pending = list(blocks)
    progress = True
    needed: list[Block] = []
    while progress:
        progress = False
        for b in list(pending):
            nodes = {u.node for u in b.unknowns}
            if nodes & live or any(e.label in labels for e in b.equations if e.label):
                pending.remove(b)
                needed.append(b)
                live |= reached(block_roots(b), definitions)
                progress = True
    for b in blocks:
        for u in b.unknowns:
            direct = u.node in live
            if not direct or (b in pending):
                report.add(
                    "IMP104",
                    f"unknown `{u.name}` reaches no output",
                    u.span or b.span,
                    help=f"return it: `return …, {u.name}`, or remove it",
                )
    for b in needed:
        _unreached_in(tried, b, outputs, definitions)
    mentioned = set(live)
    for b in blocks:
        mentioned |= reached(block_roots(b), definitions)
    names = {s.name for s in mentioned}
    texts = {str(n.attrs[0]) for b in blocks for r in block_roots(b) for n in walk(r) if n.op == "apply"}
    texts |= {str(n.attrs[0]) for o in outputs for n in walk(o.expr) if n.op == "apply"}
    texts |= {str(n.attrs[0]) for s in mentioned if s in definitions for n in walk(definitions[s]) if n.op == "apply"}
    for e in tried.scope.entities("param"):
        if e.name not in names:
            report.add(
                "IMP103",
                f"param `{e.name}` is never used; it would get no gradient",
                e.span,
                help=f"use `{e.name}` in an equation, or remove it",
            )
    for e in tried.scope.entities("fn", "layer"):
        if e.opaque is not None and e.name not in texts:
            report.add(
                "IMP103",
                f"`{e.name}` is never called; its parameters would get no gradient",
                e.span,
                help="call it, or remove it",
            )
    return texts


def _unreached_in(tried: Attempt, b: Block, outputs: tuple[OutputValue, ...], definitions: Mapping[Expr, Expr]) -> None:
    """Within a system of roots: unknowns that no returned unknown's equations lead to."""
    if b.sentence != "root" or len(b.unknowns) < 2:
        return
    nodes = {u.node for u in b.unknowns}
    other = [r for o in outputs for r in (o.expr,)]
    live = reached(other, definitions) & nodes
    if not live:
        return
    incidence = [{s.name for s in reached([e.lhs, e.rhs], definitions) & nodes} for e in b.equations if e.op == "="]
    matching = match(incidence)
    todo = [s.name for s in live]
    seen = set(todo)
    while todo:
        i = matching.get(todo.pop())
        for name in incidence[i] if i is not None else ():
            if name not in seen:
                seen.add(name)
                todo.append(name)
    for u in b.unknowns:
        if u.name not in seen:
            tried.context.report.add(
                "IMP104",
                f"unknown `{u.name}` reaches no output",
                u.span or b.span,
                help=f"return it: `return …, {u.name}`, or remove it",
            )


def undeclared_names(tried: Attempt, later: set[str]) -> None:
    """IMP101 for names under a header, with the declaration that is missing."""
    context, report = tried.context, tried.context.report
    if context.bare:
        return
    for name, e in context.undeclared.items():
        assert e.node is not None
        shape = context.dims.shape(e.node.shape)
        known = not any(is_flexible(n) for d in shape for n in d.names)
        described = (
            "R"
            if not shape
            else f"R^{shape[0]}"
            if len(shape) == 1 and not str(shape[0]).count(" ")
            else f"R^{show_shape(shape)}"
        )
        declaration = f"{e.kind} {name} in {described}" if known else f"{e.kind} {name} in …"
        declared = [n for n, x in tried.scope.names.items() if not x.undeclared]
        close = nearest(name, declared)
        differs = _spans(tried, name)
        help_text = (f"did you mean `{close}`, or " if close else "") + f"declare it: `{declaration}`"
        report.add(
            "IMP101",
            f"unknown name `{name}`",
            differs[0] if differs else e.span,
            help=help_text,
            fixes=(unsafe(help_text, *((s, close) for s in differs)),) if close else (),
        )


def _spans(tried: Attempt, name: str) -> list[Span]:
    return [n.span for n in descend(tried.layer.sections) if isinstance(n, ast.Name) and n.text == name]


def _inferable(tried: Attempt) -> set[str]:
    """Flexible dimensions that an input's shape, or a bound name, settles at the first call."""
    dims = tried.context.dims
    return {
        n
        for e in tried.scope.entities("given")
        if e.node is not None
        for d in e.node.shape
        for n in dims.resolve(d).names
    }


def unresolved(tried: Attempt, inferable: set[str]) -> None:
    """IMP203: dimensions that nothing determines."""
    context = tried.context
    if context.report.errors or context.broken:  # what was dropped may be what ties them
        return
    for e in tried.scope.entities("unknown", "param", "const"):
        if e.node is None or e.undeclared:
            continue
        loose = [
            n for d in e.node.shape for n in context.dims.resolve(d).names if is_flexible(n) and n not in inferable
        ]
        if loose:
            context.report.add(
                "IMP203",
                f"the shape of `{e.name}` cannot be inferred: nothing ties "
                f"{'it' if len(e.node.shape) == 1 else 'all its dimensions'} to an input",
                e.span,
                help=f"give it a set: `{e.name} in R^{'(n, m)' if len(e.node.shape) == 2 else 'n'}`",
            )


def defaults(tried: Attempt) -> None:
    """IMP120: what a bare text left to convention."""
    report = tried.context.report
    kinds = {"given": "an input, `given", "param": "a parameter, `param"}
    functions = [f for f in tried.context.functions if not tried.context.functions[f].internal]
    for e in tried.scope.entities("given", "param", "unknown"):
        if not e.filled or e.set is None:
            continue
        if e.kind == "unknown":
            report.add("IMP120", f"`{e.name}` is taken to lie in `{e.set.text}`", e.span)
        else:
            report.add("IMP120", f"`{e.name}` is taken as {kinds[e.kind]} {e.name} in {e.set.text}`", e.span)
    for e in tried.scope.entities("fn"):
        if e.filled and e.opaque is not None:
            close = suggest(e.name, tried.scope, functions)
            args = ", ".join(_set(s) for s in map(tried.context.dims.shape, e.opaque.args))
            result = _set(tried.context.dims.shape(e.opaque.results[0]))
            report.add(
                "IMP120",
                f"`{e.name}` is taken as a function, `fn {e.name}: ({args}) -> {result}`",
                e.span,
                help=f"did you mean `{close}`?" if close in functions else None,
            )
    for name in tried.filling.initial.values():
        e = tried.scope.find(name)
        if e is not None:
            report.add(
                "IMP120",
                f"`{name}` is an unknown of time, for t in [0, 1], with `{name}(0) = {name}0`; `{name}(1)` is returned",
                e.span,
            )


def _set(shape: Shape) -> str:
    return (
        "R"
        if not shape
        else f"R^{shape[0]}"
        if len(shape) == 1 and str(shape[0]).isalnum()
        else "R^(" + ", ".join(map(str, shape)) + ")"
    )
