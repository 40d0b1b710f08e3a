"""The loop run eagerly: one comparison a test while no row can be done, and finished rows leave with what they had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .host import LARGE, SMALL, extent
from .problem import Inputs, RootProblem
from .verdict import MAX_ITERATIONS, RUNNING, Rule, Solved, View, bundle, leaving, norm, solved_status, verdict, vouched

if TYPE_CHECKING:
    from .loop import Iteration

ROOM = 16.0
"""How much larger ‖z‖ may become before finished rows are noticed late; it is measured whenever k has doubled."""

GATHERING = 16384
"""Numbers in z through which a step costs about what it costs to gather the unfinished rows of a small batch."""

RHYTHM = 16
"""A method that is tested every few steps is tested after another 1/RHYTHM of its steps where that is more."""


def run_eagerly(
    method: Iteration,
    whole: RootProblem,
    a: Inputs,
    problem: RootProblem,
    state: Any,
    view: View,
    rule: Rule,
    scale: Tensor,
    least: float,
    reach: float,
) -> Solved:
    """Iterate from `state` until every row has a verdict; `problem` is `whole` at a, `view` that of `state` with its
    smallest error `least`, `reach` about the largest of max(‖z‖, scale). See `loop.run`.

    Where enough rows of a batch have left that it pays, the others are gathered and go on alone. One host sync a test.
    """
    first = view.error
    if not len(first):
        return bundle(leaving(view, torch.full_like(first, RUNNING, dtype=torch.int64), 0))
    ledger = _Ledger()
    rows: Tensor | None = None  # places of the rows still here; None while all are
    gone: Tensor | None = None  # rows here that have left already
    left = 0
    mark = first
    since = [first]  # errors since the last look at progress
    k, before, due = 0, 0, rule.window
    size = scale
    ceiling, measured = ROOM * rule.tol * reach, 8
    while True:
        error = view.error
        if gone is not None:
            error = error.masked_fill(gone, torch.inf)
            least, _ = extent(error)
        if k:
            since.append(error)
        last = k >= rule.max_iter
        look = last or k >= due or math.isnan(least) or view.outcome is not None
        if look or not least > ceiling or k >= 2 * measured:
            measured = max(measured, k)
            size, largest = sized(view.z, scale)
            ceiling = 2 * rule.tol * largest
        if look or not least > ceiling:
            bound = rule.tol * size
            # where iterates run off to infinity ‖z‖ makes any residual relatively small, so it must have fallen as well
            done = view.error <= (bound if k == 0 else torch.minimum(bound, 0.9 * first))
            if not math.isfinite(ceiling):
                done = done & view.error.isfinite()
            if view.correction is not None:
                done = done & vouched(view, scale, rule)
            status: Tensor | None = None
            if look:
                # progress is judged over whole windows only
                best = _least(since)
                judged = mark if k >= due else torch.full_like(mark, torch.inf)
                status = verdict(view, done, bound, scale, first, best, judged, rule)
                if last:
                    status = torch.where(status == RUNNING, MAX_ITERATIONS, status)
                done = status != RUNNING
                if k >= due:
                    due, mark, since = due + rule.window, best, [error]
            over = done if gone is None else done | gone
            everyone = bool(over.all())
            count = len(over) if everyone else int(over.sum())
            if everyone or count > left:
                plain = status is None and view.correction is None
                kept = leaving(view, solved_status(view, bound, rule.tol) if status is None else status, k)
                if everyone and rows is None and gone is None:
                    return bundle(kept, whole=plain)
                ledger.enter(rows, over if gone is None else over & ~gone, kept)
                if everyone:
                    break
                gone, left = over, count
            if left:
                remaining = _remaining(since, error, bound, over, k - before)
                if remaining * count * view.z.shape[-1] >= 2 * view.z.numel() + GATHERING:
                    stay = (~over).nonzero().view(-1)
                    rows = stay if rows is None else rows[stay]
                    state = type(state)(*(t.index_select(0, stay) for t in state))
                    a = whole.take(a, stay)
                    problem = whole.at(a)
                    first, scale, mark = first[stay], scale[stay], mark[stay]
                    since = [_least(since)[stay]]
                    gone, left = None, 0
        count = min(rule.every if rule.every == 1 else max(rule.every, k // RHYTHM), rule.max_iter - k)
        state = method.advance(problem, a, state, count)
        view, least, _ = seen(method, state)
        k, before = k + count, k
    assert ledger.out is not None
    return bundle(ledger.out)


def seen(method: Iteration, state: Any) -> tuple[View, float, float]:
    """What a test sees of a state, with the smallest and the largest error; at less cost where `glance` is right."""
    quick = method.glance(state)
    if quick is not None:
        least, most = extent(quick.error)
        if least > SMALL and most < LARGE:
            return quick, least, most
    view = method.view(state)
    return view, *extent(view.error)


def sized(z: Tensor, scale: Tensor) -> tuple[Tensor, float]:
    """max(‖z‖, scale) of each row, and the largest of them. One sync."""
    size = torch.maximum(torch.linalg.vector_norm(z, dim=-1), scale)
    least, most = extent(size)
    if z.dtype is torch.float64 or (least > SMALL and most < LARGE):
        return size, most
    size = torch.maximum(norm(z), scale)
    return size, extent(size)[1]


def _least(errors: list[Tensor]) -> Tensor:
    """The smallest of each row, NaN left out."""
    least = errors[0]
    for error in errors[1:]:
        least = torch.fmin(least, error)
    return least


def _remaining(since: list[Tensor], error: Tensor, bound: Tensor, over: Tensor, steps: int) -> float:
    """How many more steps the slowest row will take, as its error fell in the last `steps`."""
    if len(since) < 2 or not steps:
        return 0.0
    far, fall = torch.stack((error / bound, error / since[-2])).masked_fill(over, 0.0).amax(-1).log().tolist()
    return math.inf if fall >= 0 else max(0.0, -steps * far / fall)


class _Ledger:
    """What rows left with, by their place in the whole batch."""

    def __init__(self) -> None:
        self.out: list[Tensor] | None = None
        self.own = False

    def enter(self, rows: Tensor | None, new: Tensor, values: list[Tensor]) -> None:
        """Keep the rows of `values` in the mask `new`; `rows` are their places, None if nobody has been taken out."""
        if self.out is None:
            self.out = values  # rows that stay are overwritten when they leave
        elif rows is None:
            masks = {d: new.view(-1, *(1,) * (d - 1)) for d in {v.ndim for v in values}}
            self.out = [torch.where(masks[v.ndim], v, o) for v, o in zip(values, self.out, strict=True)]
        else:
            if not self.own:
                self.out, self.own = [v.clone() for v in self.out], True
            here = new.nonzero().view(-1)
            for out, value in zip(self.out, values, strict=True):
                out.index_copy_(0, rows[here], value.index_select(0, here))
