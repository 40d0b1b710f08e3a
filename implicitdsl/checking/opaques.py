"""`fn` modules and `let` sub-layers: what a call may assume of them."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ir.dims import Shape
from implicitdsl.ir.model import Model, Opaque
from implicitdsl.syntax import ast

from .context import Context
from .report import nearest, safe
from .scope import Entity, Typed


def declare_fn(context: Context, item: ast.FnDeclaration) -> Entity:
    """`f: (R^n, R) -> R^n as "pkg.mod:Class"`; without a type it is inferred at the first call."""
    name = item.name.text
    entity = Entity("fn", name, item.name.span)
    path = item.path.text if item.path else None
    if item.path is not None and (
        path is None or path.count(":") != 1 or not all(p.isidentifier() for p in path.replace(":", ".").split("."))
    ):
        context.report.add(
            "IMP704", f'`"{path}"` names no Python object', item.path.span, help='write `as "package.module:Class"`'
        )
    if item.type is None:
        entity.opaque = None
        entity.path = path
        return entity
    domain = [context.sets.read(s) for s in item.type.domain]
    codomain = context.sets.read(item.type.codomain)
    if codomain is not None and all(d is not None for d in domain):
        shapes = tuple(d.shape for d in domain if d is not None)
        entity.opaque = Opaque(name, shapes, (codomain.shape,), path, span=item.name.span)
    else:
        entity.broken = True
    return entity


def infer_fn(context: Context, entity: Entity, args: list[Typed]) -> Opaque:
    """The signature of a `fn` without a type, from its first call: the guess says the rank of the result."""
    rank = context.guess.get(entity.name, -1)
    if rank == -1:
        rank = args[0].rank if args else 1
    result = context.dims.fresh_shape(rank)
    return Opaque(entity.name, tuple(a.shape for a in args), (result,), entity.path, span=entity.span)


def declare_layer(context: Context, item: ast.LetDeclaration, models: Mapping[str, Model | None]) -> Entity:
    """`enc = Deq(n, m)`."""
    entity = Entity("layer", item.name.text, item.name.span)
    name = item.layer.text
    if name not in models:
        close = nearest(name, list(models))
        context.report.add(
            "IMP101",
            f"unknown layer `{name}`",
            item.layer.span,
            help=f"did you mean `{close}`?" if close else f'define it in this file or `import {name} from "….imp"`',
            fixes=(safe(f"did you mean `{close}`?", (item.layer.span, close)),) if close else (),
        )
        return entity
    model = models[name]
    sizes = [context.sets.dim(a) for a in item.args]
    if model is None or any(s is None for s in sizes):
        context.incomplete = True  # the error is in the other layer
        return entity
    if len(sizes) != len(model.dims):
        shown = f"{name}({', '.join(model.dims)})"
        context.report.add(
            "IMP112", f"layer `{shown}` takes {len(model.dims)} dimensions; {len(sizes)} given", item.span
        )
        return entity
    values = {d: s for d, s in zip(model.dims, sizes, strict=True) if s is not None}

    def here(shape: Shape) -> Shape:
        return tuple(d.subs(values) for d in shape)

    entity.opaque = Opaque(
        item.name.text,
        tuple(here(g.shape) for g in model.givens),
        tuple(here(o.expr.shape) for o in model.outputs),
        layer=model,
        sizes=tuple(values.items()),
        span=item.name.span,
    )
    return entity
