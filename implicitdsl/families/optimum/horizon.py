"""From the stages of a program to the places of its entries and rows, and the solver that goes along them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.analysis.horizon import Horizon, Place
from implicitdsl.ir.plan import BELOW, EQUAL, BlockPlan
from implicitdsl.solvers.optimum.quadratic import Optimum, Quadratic
from implicitdsl.solvers.optimum.riccati import Riccati
from implicitdsl.solvers.optimum.stages import Layout, Staged

from .evaluate import Bands


@dataclass(frozen=True)
class AlongStages:
    """A solver of dense quadratic programs that are banded."""

    layout: Layout
    solver: Riccati

    def solve(self, problem: Quadratic, guess: Tensor | None = None) -> Optimum:
        """See `solvers.optimum.riccati.Riccati`."""
        return self.solver.solve(Staged.of(problem, self.layout), guess)


def layout(part: BlockPlan, sizes: Mapping[str, int]) -> Layout | None:
    """The places, for given sizes, of a program over a horizon; z and C are packed as `coefficients` packs them."""
    fact = part.fact("horizon")
    form, program = None if fact is None else fact.value, part.program
    if not isinstance(form, Horizon):
        return None
    assert program is not None, "an argmin block has a normal form"
    steps = form.steps.evaluate(sizes)
    entries: dict[object, list[list[int]]] = {}
    at = 0
    for u in program.unknowns:
        length, *rest = (d.evaluate(sizes) for d in u.shape)
        width = math.prod(rest)
        entries[u] = [list(range(at + t * width, at + (t + 1) * width)) for t in range(length)]
        entries[u] += [[]] * (steps + 1 - length)
        at += length * width
    controls, states = (
        [[k for u in us for k in entries[u][t]] for t in range(steps + 1)] for us in (form.controls, form.states)
    )
    moves: list[list[int]] = [[] for _ in range(steps)]
    local: list[list[int]] = [[] for _ in range(steps + 1)]
    places = dict(zip(map(id, program.constraints), form.places, strict=True))
    order = {u: k for k, u in enumerate(form.states)}
    parts: list[tuple[int, list[list[int]]]] = []
    at = 0
    for c in (*program.of(EQUAL), *program.of(BELOW)):
        place: Place = places[id(c)]
        total = math.prod(d.evaluate(sizes) for d in c.body.shape)
        first, count = place.first.evaluate(sizes), place.count.evaluate(sizes)
        share = total // count if count else 0
        rows = [list(range(at + i * share, at + (i + 1) * share)) for i in range(count)]
        if place.moves is not None:
            parts.append((order[place.moves], rows))
        else:
            for i, mine in enumerate(rows):
                local[first + i] += mine
        at += total
    for _, rows in sorted(parts, key=lambda pair: pair[0]):
        for t, mine in enumerate(rows):
            moves[t] += mine
    return Layout.of(controls, states, moves, local)


def bands(places: Layout) -> Bands:
    """Two products a column of a stage: those of even stages, and those of odd ones."""
    stages, k = places.columns.shape
    there = places.columns >= 0
    parity = torch.arange(stages) % 2
    probe = torch.empty(places.size, dtype=torch.int64)
    numbers = (parity.unsqueeze(-1) * k + torch.arange(k)).expand(stages, k)
    probe[places.columns[there]] = numbers[there]
    probes = torch.zeros(2 * k, places.size)
    probes[probe, torch.arange(places.size)] = 1.0

    def pairs(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Every row of a stage with every column of it."""
        r, c = torch.broadcast_tensors(rows.unsqueeze(-1), columns.unsqueeze(-2))
        both = (r >= 0) & (c >= 0)
        return r[both], c[both]

    inner = pairs(places.columns, places.columns)
    ahead = places.columns[1:, places.controls :]
    found = [pairs(places.local, places.columns), pairs(places.moves, places.columns[:-1]), pairs(places.moves, ahead)]
    r, c = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Bands(probes, (*inner, probe[inner[1]]), (r, c, probe[c]))
