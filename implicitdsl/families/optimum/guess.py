"""Where the solver of a quadratic program is told to begin: at an earlier solution, or at the expression of `start`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, symbols
from implicitdsl.ir.plan import BlockPlan
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program

Shapes = Sequence[tuple[str, tuple[int, ...]]]
"""Unknowns by name, in packing order."""


@dataclass(frozen=True)
class Wish:
    """`start` of a spec: the function of some inputs that gives the first unknown, of this `rank`; None: zeros."""

    program: Program | None
    inputs: tuple[str, ...] = ()
    rank: int = 0

    def __call__(self, values: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """(1, n) or (B, n)."""
        count = math.prod(shape)
        if self.program is None:
            return torch.zeros(1, count)
        found = self.program["start"](*(values[name].detach() for name in self.inputs))
        return found.reshape(-1, count) if self.rank else found.reshape(-1, 1).expand(-1, count)


def wish(
    part: BlockPlan, title: str, inputs: Sequence[Expr], sizes: Mapping[str, int], table: Functions
) -> Wish | None:
    """That of a block; `inputs`, of which a number takes its device."""
    asked = part.block.wishes.start
    if asked is None:
        return None
    if not isinstance(asked, Expr):
        return Wish(None)
    needed = tuple(sorted(symbols(asked), key=lambda s: s.name)) or tuple(inputs[:1])
    text = generate("start", needed, [asked], table, sizes)
    return Wish(Program(f"{title}, start", text), tuple(s.name for s in needed), asked.rank)


def guess(
    asked: Wish | None,
    start: Mapping[str, Tensor] | None,
    values: Mapping[str, Tensor],
    unknowns: Shapes,
    like: Tensor,
    rows: int,
) -> Tensor | None:
    """(rows, n) like `like`, zero where nothing is said; None if nothing is said at all."""
    parts = {}
    if asked is not None and unknowns:
        parts[unknowns[0][0]] = asked(values, unknowns[0][1])
    for name, shape in unknowns:
        if start is not None and name in start:
            parts[name] = start[name].reshape(-1, math.prod(shape))
    if not parts:
        return None
    found: list[Tensor] = []
    for name, shape in unknowns:
        part = parts[name].detach() if name in parts else torch.zeros(1, math.prod(shape))
        part = part.to(dtype=like.dtype, device=like.device)
        found.append(part.expand(rows, -1) if len(part) == 1 else part[:rows])
    return torch.cat(found, -1).nan_to_num(0.0, 0.0, 0.0)
