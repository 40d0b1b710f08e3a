"""Many small steps transposed at once: operators that act on all of them together, and one product a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..solvers.ode.explicit import Explicit
from ..solvers.ode.kinks import Sides, within
from ..solvers.ode.problem import OdeProblem
from ..solvers.ode.trajectory import Taken
from ..solvers.problem import Inputs
from .ode_outputs import dense, landed
from .ode_sums import GATHERED, Gradients, joined

SMALL = 2**12
"""Numbers that a stage of a step reads for all of its states' cotangents, below which calling an operator costs more
than what it computes."""
NARROW = 32
"""States up to which the matrix of a step is worth finding."""
FEW = 4
"""Steps from which on it pays: together they cost what three cost alone."""


class Carried:
    """The cotangent of all rows (B, N), of which those of the present step, `u`, are at hand."""

    def __init__(self, lam: Tensor) -> None:
        self.lam, self.u = lam, lam
        self.ids: Tensor | None = None

    def rows(self, ids: Tensor | None) -> Tensor:
        """That of the rows `ids`, None: all. To be replaced in `u`."""
        if ids is not self.ids:
            self.lam = self.whole()
            self.ids, self.u = ids, self.lam if ids is None else self.lam.index_select(0, ids)
        return self.u

    def whole(self) -> Tensor:
        return self.u if self.ids is None else self.lam.index_copy(0, self.ids, self.u)


def stretch(entries: Sequence[Taken], end: int, width: int) -> int:
    """Where the steps begin that are transposed together with the one before `end`: small ones of one explicit method
    whose stages were kept. `end` itself where they are fewer than `FEW`. `width`: the length of the longest input.
    """
    method, begin, room = entries[end - 1].method, end, GATHERED
    while begin:
        e = entries[begin - 1]
        if e.method is not method or not isinstance(method, Explicit) or e.Z is None:
            break
        stages, b, n = e.Z.shape
        size = b * n * max(n, width)
        room -= stages * size
        if n > NARROW or size > SMALL or room < 0:
            break
        begin -= 1
    return begin if end - begin >= FEW else end


def transpose_many(
    problem: OdeProblem,
    taken: Sequence[Taken],
    a: Inputs,
    at: Tensor,
    g: Tensor,
    carried: Carried,
    sums: Gradients,
) -> bool:
    """The cotangent passes the steps `taken`, from the last to the first, with the sums of the inputs. False: nothing
    was done, because matrices overflow.

    The transpose of a step is affine, u ↦ Pᵀ u + r (r: what outputs inside it add). The columns of P come from unit
    vectors, for all steps at once; then u passes each step by a product; then the stages of all steps get their
    cotangents at once. Cost in numbers: that of N + 1 transposes of each step; in operators: that of three steps, and
    three a step.
    """
    method, n = taken[0].method, g.shape[2]
    assert isinstance(method, Explicit)
    counts = [len(e.t) for e in taken]
    m = sum(counts)
    t, H = joined([e.t for e in taken]), joined([e.H for e in taken])
    Z = torch.cat([e.Z for e in taken if e.Z is not None], 1)
    every, ids = None, None
    if any(e.ids is not None for e in taken) or any(sums.batched):
        every = torch.arange(sums.rows, device=g.device)
        ids = every = joined([every if e.ids is None else e.ids for e in taken])
    if all(e.ids is None for e in taken):
        ids = None
    mine = a if every is None else problem.rows(a, every)
    parts = [e.sides for e in taken if e.sides is not None]
    sides = Sides(*(joined(list(x)) for x in zip(*parts, strict=True))) if parts else None
    piece = within(problem, sides)
    kept = None
    stages = [e.kept for e in taken if e.kept is not None]
    if len(stages) == len(taken) and piece.reuse is not None:
        later = [tuple(map(joined, zip(*each, strict=True))) for each in zip(*stages, strict=True)]
        kept = (piece.reuse.rate(t, Z[0], *mine)[1], *later)
    outputs = dense(taken, g)
    rates = None if outputs is None else outputs.rates

    wide = None if sides is None else Sides(*(x.repeat(n) for x in sides))
    unit = torch.eye(n, dtype=g.dtype, device=g.device).repeat_interleave(m, 0)
    rows = method.transpose(
        within(problem, wide),
        tuple(_times(x, n) if batched else x for x, batched in zip(mine, sums.batched, strict=True)),
        t.repeat(n),
        H.repeat(n, 1),
        Z.repeat(1, n, 1),
        unit,
        None,
        None if kept is None else tuple(tuple(_times(x, n) for x in stage) for stage in kept),
    )[0]
    P = rows.view(n, m, n).transpose(0, 1)
    if not bool(P.isfinite().all()):
        return False
    own = None
    if outputs is not None:
        own = outputs.state + method.transpose(piece, mine, t, H, Z, g.new_zeros(m, n), rates, kept)[0]
        own = own.split(counts)
    after: list[Tensor] = []
    each = P.split(counts)
    for k in range(len(taken) - 1, -1, -1):
        u, given = carried.rows(taken[k].ids), landed(taken[k], at, g)
        u = u if given is None else u + given
        after.append(u)
        u = torch.bmm(u.unsqueeze(1), each[k]).squeeze(1)
        carried.u = u if own is None else u + own[k]
    if sums.wanted:
        _, bars, more = method.transpose(piece, mine, t, H, Z, joined(after[::-1]), rates, kept)
        sums.add_steps(method.times(t, H), Z, bars, ids, sides, kept, more)
    return True


def _times(x: Tensor, n: int) -> Tensor:
    """x n times, one after another."""
    return x.repeat(n, *(1,) * (x.dim() - 1))
