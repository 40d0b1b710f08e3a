"""A model as text, one line a node: what a pass really made, sharing and shapes included. Stable, so it can be
compared."""

from __future__ import annotations

from collections.abc import Hashable

from .dims import Dim, show_shape
from .model import Block, Equation, Model, Symbol
from .nodes import Expr, walk
from .printer import show_number


def dump(what: Model | Expr) -> str:
    """`%k = op[attributes](arguments): shape` for every node, arguments first; symbols and numbers stand where they
    are used.

    Of a model also symbols, definitions, blocks and outputs, in terms of the nodes.
    """
    writer = _Writer()
    if isinstance(what, Model):
        writer.model(what)
    else:
        writer.line(f"return {writer.ref(what)}")
    return "\n".join(writer.lines) + "\n"


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ids: dict[Expr, str] = {}
        self.indent = ""

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def ref(self, e: Expr) -> str:
        """What stands for a node; its lines, and those of what it needs, are written before."""
        for x in walk(e):
            if x in self.ids:
                continue
            if x.op == "sym":
                self.ids[x] = x.name
            elif x.op == "num":
                self.ids[x] = show_number(x.number or 0.0).text
            else:
                attrs = f"[{', '.join(map(_attr, x.attrs))}]" if x.attrs else ""
                args = f"({', '.join(self.ids[a] for a in x.args)})" if x.args else ""
                name = f"%{sum(i.startswith('%') for i in self.ids.values())}"
                self.line(f"{name} = {x.op}{attrs}{args}: {show_shape(x.shape)}")
                self.ids[x] = name
        return self.ids[e]

    def model(self, model: Model) -> None:
        self.line(f"model {model.name or '(bare)'}({', '.join(model.dims)})")
        self.indent = "  "
        for kind, symbols in (("given", model.givens), ("param", model.params), ("const", model.consts)):
            for s in symbols:
                self.line(f"{kind} {_symbol(s)}")
        for o in model.opaques:
            args, results = (", ".join(map(show_shape, shapes)) for shapes in (o.args, o.results))
            self.line(f"fn {o.name}: ({args}) -> {results}")
        for name, value in model.definitions:
            ref = self.ref(value)
            self.line(f"where {name.name} = {ref}")
        for block in model.blocks:
            self.block(block)
        for output in model.outputs:
            ref = self.ref(output.expr)
            self.line(f"return {output.name} = {ref}")

    def block(self, block: Block) -> None:
        self.line(f"block {block.sentence}")
        self.indent = "    "
        for u in block.unknowns:
            self.line(f"unknown {_symbol(u)}")
        for d in block.domains:
            lo, hi = self.ref(d.lo), self.ref(d.hi)
            points = f" on {d.points} points" if d.points is not None else ""
            self.line(f"for {d.name} in [{lo}, {hi}]{points}{', periodic' * d.periodic}")
        if block.objective is not None:
            ref = self.ref(block.objective)
            self.line(f"{block.sense} {ref}")
        for kind, equations in (("equation", block.equations), ("until", block.until)):
            for equation in equations:
                self.equation(kind, equation)
        self.indent = "  "

    def equation(self, kind: str, q: Equation) -> None:
        lhs = self.ref(q.lhs)
        rhs = q.set.text if q.set is not None else self.ref(q.rhs)
        index = "".join(f" for {name} in {lo}:{hi}" for name, lo, hi in q.index)
        self.line(f"{kind} {q.label + ': ' if q.label else ''}{lhs} {q.op} {rhs}{index}")


def _symbol(s: Symbol) -> str:
    init = "" if s.init.kind == "default" else f" = {s.init.kind}{s.init.args or s.init.literal or ''}"
    return f"{s.name}: {show_shape(s.shape)} in {s.set.text}{init}{' (filled in)' * s.filled}"


def _attr(a: Hashable) -> str:
    """Dimensions as they are written, items as `at i` and `lo:hi`."""
    match a:
        case ("at", Dim() as i):
            return f"at {i}"
        case ("slice", Dim() as lo, Dim() as hi):
            return f"{lo}:{hi}"
        case tuple():
            return ", ".join(_attr(x) for x in a)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # attributes are plain values
        case _:
            return str(a)
