"""Hand-built models: symbols with sets, one root block."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.functions import TABLE
from implicitdsl.ground.source import Source, Span
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.model import Block, Equation, Model, OutputValue, SetInfo, Symbol, Wishes
from implicitdsl.ir.nodes import Expr, Role

SOURCE = Source("<string>", "find z such that z = tanh(W z + x)\n")
N = Dim.of("n")


def shape(*dims: str | int) -> Shape:
    return tuple(Dim.of(d) for d in dims)


def real(s: Shape) -> SetInfo:
    text = "R" if not s else f"R^{s[0]}" if len(s) == 1 else f"R^({', '.join(map(str, s))})"
    return SetInfo("R", (), s, text)


def in_set(name: str, text: str, s: Shape, *args: float) -> SetInfo:
    return SetInfo(name, args, s, text)


def symbol(name: str, role: Role, where: SetInfo) -> Symbol:
    return Symbol(name, build.sym(name, role, where.shape), where, span=Span(0, 4))


def param(name: str, where: SetInfo) -> Symbol:
    return symbol(name, Role.PARAM, where)


def given(name: str, where: SetInfo) -> Symbol:
    return symbol(name, Role.GIVEN, where)


def const(name: str, where: SetInfo) -> Symbol:
    return symbol(name, Role.CONST, where)


def unknown(name: str, where: SetInfo) -> Symbol:
    return symbol(name, Role.UNKNOWN, where)


def f(name: str, *args: Expr) -> Expr:
    return TABLE[name].build(args)


def equation(lhs: Expr, rhs: Expr) -> Equation:
    return Equation(lhs, "=", rhs, Span(17, 34))


def root(unknowns: Sequence[Symbol], equations: Sequence[Equation], wishes: Wishes | None = None) -> Block:
    return Block("root", tuple(unknowns), tuple(equations), Span(0, 34), wishes=wishes or Wishes())


def model(blocks: Sequence[Block], *others: Symbol) -> Model:
    groups = {role: tuple(s for s in others if s.node.role is role) for role in (Role.GIVEN, Role.PARAM, Role.CONST)}
    outputs = tuple(OutputValue(s.name, s.node) for b in blocks for s in b.unknowns)
    return Model(
        None,
        ("n", "m"),
        groups[Role.GIVEN],
        groups[Role.PARAM],
        groups[Role.CONST],
        (),
        (),
        tuple(blocks),
        outputs,
        SOURCE,
    )


SQUARE = shape("n", "n")
VECTOR = shape("n")
z = unknown("z", real(VECTOR))
x = given("x", real(VECTOR))


def deq(weights: SetInfo, activation: str = "tanh", wishes: Wishes | None = None) -> Model:
    """find z such that z = activation(W z + x)."""
    W = param("W", weights)
    rhs = f(activation, build.add(build.matmul(W.node, z.node), x.node))
    return model([root([z], [equation(z.node, rhs)], wishes)], W, x)
