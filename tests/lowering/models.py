"""Models built by hand, as the checker would make them, and a plain solver for blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from symbols import U, W, bias, m, n, tanh, x
from torch import Tensor

from implicitdsl.functions import FUNCTIONS
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.ground.source import Source, Span
from implicitdsl.ir import build as b
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.model import Block, Equation, Init, Model, Opaque, OutputValue, SetInfo, Symbol
from implicitdsl.ir.nodes import Expr, Role, sym
from implicitdsl.lowering.layer import Layer
from implicitdsl.lowering.report import Report

TABLE = {f.name: f for f in FUNCTIONS}
SOURCE = Source("<string>", "given x in R^m\nparam W in R^(n, n)\n")
NOWHERE = Span(0, 5)


def reals(shape: Shape) -> SetInfo:
    text = "R" if not shape else f"R^{shape[0]}" if len(shape) == 1 else f"R^({', '.join(map(str, shape))})"
    return SetInfo("R", (), shape, text)


def symbol(node: Expr, kind: SetInfo | None = None, init: Init | None = None) -> Symbol:
    return Symbol(node.name, node, kind or reals(node.shape), init or Init("default"), NOWHERE)


def model(
    givens: Sequence[Symbol] = (),
    params: Sequence[Symbol] = (),
    consts: Sequence[Symbol] = (),
    outputs: Sequence[tuple[str, Expr]] = (),
    definitions: Sequence[tuple[Expr, Expr]] = (),
    blocks: Sequence[Block] = (),
    opaques: Sequence[Opaque] = (),
    dims: Sequence[str] = (),
    name: str | None = "Net",
) -> Model:
    return Model(
        name,
        tuple(dims),
        tuple(givens),
        tuple(params),
        tuple(consts),
        tuple(opaques),
        tuple(definitions),
        tuple(blocks),
        tuple(OutputValue(name, e) for name, e in outputs),
        SOURCE,
    )


@dataclass(frozen=True)
class Nothing:
    """The lowering of an explicit layer: no blocks."""

    def __call__(self, sizes: Mapping[str, int]) -> Sequence[Any]:
        return ()


def layer(model: Model, **more: Any) -> Layer:
    more.setdefault("lower", Nothing())
    return Layer(model, functions=TABLE, **more)


h = sym("h", Role.DEFINITION, (n,))
DENSE = model(
    givens=[symbol(x)],
    params=[symbol(U), symbol(W, SetInfo("SpectralBall", (0.9,), (n, n), "SpectralBall(n, 0.9)")), symbol(bias)],
    definitions=[(h, b.add(b.matmul(U, x), bias))],
    outputs=[("y", tanh(b.matmul(W, h)))],
    dims=["n", "m"],
)
"""y = tanh(W h) with h = U x + b."""

TWO = model(
    givens=[symbol(x)],
    params=[symbol(U)],
    definitions=[(h, b.matmul(U, x))],
    outputs=[("y", tanh(h)), ("sum", b.total(h)), ("lambda", U)],
    dims=["n", "m"],
)


@dataclass(frozen=True)
class Picard:
    """z = tanh(W z + h) by plain iteration, on the tape; fails on samples whose h has an entry above 10."""

    calls: list[dict[str, Any]] = field(default_factory=list, compare=False)
    policy: str = "warn"
    texts: tuple[str, ...] = ()

    def __call__(self, sizes: Mapping[str, int]) -> Sequence[Picard]:
        return [self]

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Any],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        self.calls.append({"batch": batch, "start": start, "values": sorted(values)})
        z = torch.zeros_like(values["h"]) if start is None else start["z"]
        for _ in range(60):
            z = torch.tanh(z @ values["W"].mT + values["h"])
        good = (values["h"] < 10).all(-1)
        count = torch.full(good.shape, 60)
        residual = (z - torch.tanh(z @ values["W"].mT + values["h"])).norm(dim=-1)
        report = Report(good, torch.where(good, 0, 2), count, residual.detach(), count + 1, "picard")
        if self.policy == "raise" and not bool(good.all()):
            raise ConvergenceError("no", ({"z": z}, report))
        return {"z": z}, report if want_report else None


z = sym("z", Role.UNKNOWN, (n,))
DEQ = model(
    givens=[symbol(x)],
    params=[symbol(U), symbol(W, SetInfo("SpectralBall", (0.9,), (n, n), "SpectralBall(n, 0.9)")), symbol(bias)],
    definitions=[(h, b.add(b.matmul(U, x), bias))],
    blocks=[
        Block(
            "root",
            (symbol(z),),
            (Equation(z, "=", tanh(b.add(b.matmul(W, z), h)), NOWHERE),),
            NOWHERE,
        )
    ],
    outputs=[("z", z), ("energy", b.matmul(z, z))],
    dims=["n", "m"],
)

__all__ = ["DENSE", "DEQ", "TWO", "Dim", "Picard", "layer", "m", "model", "n", "reals", "symbol"]
