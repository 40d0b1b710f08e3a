"""After inference: flexible dimensions get names, raw nodes become simplified ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.function import Function
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr, node, walk

from .shapes import Dims, is_flexible

NAMES = ("n", "m", "k", "p", "q", "r", "l", "n1", "m1", "k1", "p1", "q1", "r1", "l1")


def name_dims(dims: Dims, shapes: list[Shape], taken: set[str]) -> list[str]:
    """Give every flexible dimension that is left a name; returns the new names in order."""
    names: list[str] = []
    pool = [n for n in NAMES if n not in taken]
    extra = (f"d{i}" for i in range(1, 10_000))
    for shape in shapes:
        for dim in shape:
            for flexible in sorted((n for n in dims.resolve(dim).names if is_flexible(n)), key=lambda n: int(n[1:])):
                name = pool.pop(0) if pool else next(n for n in extra if n not in taken)
                dims.known[flexible] = Dim.of(name)
                names.append(name)
    return names


class Finisher:
    """Rebuilds expressions with `ir.build`, all dimensions resolved."""

    def __init__(self, dims: Dims, functions: Mapping[str, Function]) -> None:
        self.dims = dims
        self.functions = functions
        self.memo: dict[Expr, Expr] = {}

    def __call__(self, e: Expr) -> Expr:
        for n in walk(e):
            if n not in self.memo:
                self.memo[n] = self.make(n, tuple(self.memo[a] for a in n.args)) if n.args else self.leaf(n)
        return self.memo[e]

    def dim(self, value: object) -> Dim:
        assert isinstance(value, Dim)
        return self.dims.resolve(value)

    def leaf(self, e: Expr) -> Expr:
        if e.op == "dim":
            return build.dimension(self.dim(e.attrs[0]), span=e.span)
        if e.op == "call":
            return self.functions[e.name].build((), e.span)
        shape = self.dims.shape(e.shape)
        return node(e.op, (), e.attrs, shape, e.span) if shape != e.shape else e

    def make(self, e: Expr, args: tuple[Expr, ...]) -> Expr:
        span = e.span
        match e.op:
            case "neg":
                return build.neg(args[0], span=span)
            case "add":
                return build.add(args[0], args[1], span=span)
            case "mul":
                return build.mul(args[0], args[1], span=span)
            case "div":
                return build.div(args[0], args[1], span=span)
            case "pow":
                return build.power(args[0], args[1], span=span)
            case "matmul":
                return build.matmul(args[0], args[1], span=span)
            case "outer":
                return build.outer(args[0], args[1], span=span)
            case "transpose":
                return build.transpose(args[0], span=span)
            case "index":
                return build.index(args[0], tuple(self.item(i) for i in e.attrs), span=span)
            case "stack":
                return build.stack(args, span=span)
            case "sum_for" | "stack_for":
                name, lo, hi = e.attrs
                make = build.sum_for if e.op == "sum_for" else build.stack_for
                return make(args[0], str(name), self.dim(lo), self.dim(hi), span=span)
            case "call":
                return self.functions[e.name].build(args, span)
            case _:
                return node(e.op, args, e.attrs, self.dims.shape(e.shape), span)

    def item(self, item: object) -> build.Item:
        kind, *places = cast("tuple[object, ...]", item)
        if kind == "at":
            return ("at", self.dim(places[0]))
        return ("slice", self.dim(places[0]), self.dim(places[1]))

    def set(self, found: SetInfo) -> SetInfo:
        """A set with its dimensions resolved, and its text accordingly."""
        shape = self.dims.shape(found.shape)
        text = found.text
        for name in sorted({n for d in found.shape for n in d.names if is_flexible(n)}, key=lambda n: -int(n[1:])):
            value = str(self.dims.resolve(Dim.of(name)))
            power = value if value.isidentifier() or value.isdigit() else f"({value})"
            text = text.replace(f"^{name}", f"^{power}").replace(name, value)
        return SetInfo(found.name, found.args, shape, text)
