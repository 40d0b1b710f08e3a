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
    if asked is None and not start:
        return None
    found = like.new_zeros(rows, sum(math.prod(shape) for _, shape in unknowns))
    if asked is not None:
        part = asked(values, unknowns[0][1])
        found[:, : part.shape[-1]] = part[:rows]
    return placed(found, start or {}, unknowns).nan_to_num(0.0, 0.0, 0.0)


def placed(z: Tensor, start: Mapping[str, Tensor], unknowns: Shapes) -> Tensor:
    """z (B, n) itself, with the unknowns that an earlier solution gives put in their places."""
    at = 0
    for name, shape in unknowns:
        count = math.prod(shape)
        if name in start:
            z[:, at : at + count] = start[name].detach().reshape(-1, count)[: len(z)]
        at += count
    return z
