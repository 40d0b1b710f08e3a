"""The loop over steps: every row has its own step size, and its steps do not depend on what shares its batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...ground import progress
from ...ground.outcomes import Outcome
from ..problem import Inputs
from .control import Control, first_step, growth, scaled_error
from .events import Events
from .kinks import Sides, kinks_of, within
from .method import Method, Step
from .problem import OdeProblem
from .rows import Rows, verdicts
from .trajectory import CONVERGED, RUNNING, Ended, Places, Taken, Tape, interpolate

STIFF_AFTER = 20
"""Steps in a row that stability limits, after which a row counts as stiff."""
WORTH = 60
"""Remaining steps that make a change of method worth it."""
PATIENCE = 32
"""Attempts between two looks at whether accepted steps have become too small."""
LANDED = 1 - 1e-12
TINY = 1e-14
"""Parts of a span, of which a fifth is more than rounding."""
STEPS = 100
"""Equal steps of a method without an error estimate, where nothing is said."""


class Integration:
    """The state of a run; `run` once for each method of a ladder, each takes the rows that the one before gave up."""

    def __init__(
        self,
        problem: OdeProblem,
        a: Inputs,
        y0: Tensor,
        places: Places,
        control: Control,
        tape: Tape | None,
        events: Events | None = None,
    ) -> None:
        self.events = events
        if tape is None or tape.room <= 0:  # nothing that the stages compute is wanted again
            problem = replace(problem, reuse=None)
        self.problem, self.a, self.control, self.tape = problem, a, control, tape
        self.places, self.y0 = places, y0
        B, device = y0.shape[0], y0.device
        self.rtol, self.atol = control.tolerances(y0.dtype)
        self.end = y0.clone()
        self.status, self.s = verdicts(problem, a, y0, places)
        self.kinks = kinks_of(problem, a, places.t0, places.span)
        self.steps, self.nfe, self.rung = (torch.zeros(B, dtype=torch.int64, device=device) for _ in range(3))
        self.fired = torch.full_like(self.steps, -1)
        self.error = torch.zeros(B, 1, dtype=torch.float64, device=device)
        self.inner = bool(((places.at > 0) & (places.at < 1)).any())
        self.out = y0.unsqueeze(1).expand(B, places.at.shape[1], y0.shape[1]).clone() if self.inner else None
        self.filled = places.at <= 0

    def run(self, method: Method, rung: int, *, last: bool) -> None:
        """Integrate the rows without a verdict; unless it is the last method, stiff rows are left to the next."""
        ids = (self.status == RUNNING).nonzero().view(-1)
        b = len(ids)
        if b == 0:
            return
        a = self.a if b == len(self.status) else self.problem.rows(self.a, ids)
        rows = self._begin(method, ids, a)
        self.rung[ids] = rung
        attempts, refused = 0, False
        with progress.bar(f"{b} samples" if b > 1 else "1 sample") as bar:
            while True:
                attempts += 1
                going, refused = self._attempt(method, rows, a, attempts, last, refused)
                if bar is not None and (not going or bar.due()):
                    self._show(bar, rows, len(ids), going)
                if not going:
                    break
                b = len(rows.ids)
                if going < b and (going <= 0.75 * b or b <= 8 or refused or rows.stopped):
                    alive = rows.going
                    self._settle(method, rows, attempts)
                    rows.take(alive.view(-1).nonzero().view(-1))
                    a = self.problem.rows(self.a, rows.ids)
        self._settle(method, rows, attempts)
        if not last:
            left = (self.status == int(Outcome.STIFF)) | (self.status == int(Outcome.MAX_STEPS))
            self.status = torch.where(left, RUNNING, self.status)

    def result(self) -> Ended:
        """After the last method."""
        y = self.end.unsqueeze(1)
        if self.out is not None:
            y = torch.where(((self.places.at >= 1) | ~self.filled).unsqueeze(-1), y, self.out)
        elif bool(self.filled.any()):
            y = torch.where((self.places.at <= 0).unsqueeze(-1), self.y0.unsqueeze(1), y)
        else:
            y = y.expand(-1, self.places.at.shape[1], -1)
        time = self.places.t0 + self.s[:, 0] * self.places.span
        return Ended(y, self.end, self.status, self.steps, self.error[:, 0], self.nfe, time, self.rung, self.fired)

    def _show(self, bar: progress.Bar, rows: Rows, count: int, going: int) -> None:
        """Where the slowest sample is, and how many are through."""
        place = torch.where(rows.going | (going == 0), rows.s, torch.inf)[:, 0]
        slowest = int(place.argmin())
        part = float(rows.s[slowest])
        t = float(rows.t0[slowest]) + part * float(rows.span[slowest])
        bar.show(part, f"t = {t:.6g}, {count - going} of {count} finished")

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _adapts(self, method: Method) -> bool:
        """Whether steps follow the error; else they are equal."""
        return method.control > 0 and self.control.dt is None and self.control.steps is None

    def _begin(self, method: Method, ids: Tensor, a: Inputs) -> Rows:
        y, s = self.end[ids], self.s[ids]
        t0, span = self.places.t0[ids].unsqueeze(1), self.places.span[ids].unsqueeze(1)
        t = (t0 + s * span).to(y.dtype)[:, 0]
        kinks = None if self.kinks is None else self.kinks.take(ids)
        problem = within(self.problem, None if kinks is None else kinks.sides(s, span, y.dtype))
        first = method.first(problem, t, y, a)
        self.nfe[ids] += 1
        control = self.control
        if control.dt is not None:
            h = control.dt / span.abs()
        elif not self._adapts(method):
            h = torch.full_like(s, 1.0 / (control.steps or STEPS))
        elif control.dt0 is not None:
            h = control.dt0 / span.abs()
        else:
            h = first_step(problem, method, a, t, span.to(y.dtype), y, first, self.rtol, self.atol)
            self.nfe[ids] += 1
        if self._adapts(method):
            h = control.below(control.above(h, span), span)
        zero, at, most = torch.zeros_like(s), self.places.at[ids], self.error[ids]
        unknown = torch.full_like(s, torch.nan)
        return Rows(ids, self.status[ids], t0, span, at, s, h, y, first, zero, zero, most, zero, unknown, kinks)

    def _attempt(
        self, method: Method, rows: Rows, a: Inputs, attempts: int, last: bool, refused: bool
    ) -> tuple[int, bool]:
        """One step of every row: (how many go on, whether one was refused). One host synchronisation."""
        dtype, adapts, control, kinks = rows.y.dtype, self._adapts(method), self.control, rows.kinks
        lands = self.inner and method.interpolant is None
        target = torch.where(rows.at > rows.s, rows.at, 1.0).amin(1, keepdim=True) if lands else None
        sides, problem = None, self.problem
        if kinks is not None:
            ahead, sides = kinks.ahead(rows.s), kinks.sides(rows.s, rows.span, dtype)
            target = ahead if target is None else torch.minimum(target, ahead)
            problem = within(problem, sides)
        s = rows.s + rows.h
        s = torch.where(s >= LANDED, 1.0, s) if target is None else torch.where(s >= target * LANDED, target, s)
        h = s - rows.s
        t, H = torch.addcmul(rows.t0, rows.s, rows.span).to(dtype)[:, 0], (h * rows.span).to(dtype)
        step = method.step(problem, a, t, H, rows.y, rows.first)
        log = factor = None
        if adapts:
            ratio = scaled_error(step, rows.y, self.rtol, self.atol, self.problem.measured)
            good, log = ratio <= 1, ratio.clamp(min=1e-10).log_()
            factor = growth((log, rows.log1, rows.log2), control.controller, method.control)
            rows_h = control.above(h * factor, rows.span)
            if target is not None:  # a step cut short to land says little of the next
                rows_h = torch.where(good & (s >= target), torch.maximum(rows_h, rows.h), rows_h)
            if step.stiffness is not None and step.sure is not None and method.limit is not None:
                radius = step.stiffness / h
                most = method.limit / torch.where(step.sure, radius, torch.fmax(radius, rows.radius))
                rows.radius = torch.where(step.sure, radius, rows.radius)
                if not last:
                    rows.limited = (rows.limited + 1) * (rows_h > most)
                rows_h = torch.fmin(rows_h, most)
            rows_h = control.below(rows_h, rows.span)
        else:
            ratio, good = rows.most, step.y.isfinite().all(1, keepdim=True)
            rows_h = rows.h
        # a refused step can be cut to a fifth at least: only a tiny one may become too small by it
        cut = (h < TINY).gt(good) if adapts and control.min_step is None else ~good
        reached = torch.where(good, s, rows.s)
        counts = {"taken": good, "done": reached >= 1, "cut": cut}
        mask = arrived = None
        if self.inner and not lands:
            mask = (rows.at > rows.s) & (rows.at <= s) & (rows.at < 1) & good
            counts["asked"] = mask.any(1, keepdim=True)
        if kinks is not None:
            arrived = kinks.at(s).any(1) & good[:, 0]
            counts["arrived"] = arrived.unsqueeze(1)
        if not last and step.stiffness is not None:
            counts["stiff"] = rows.limited >= STIFF_AFTER
        found = dict(zip(counts, torch.cat(list(counts.values()), 1).sum(0).tolist(), strict=True))
        b, taken = len(rows.ids), found["taken"]
        if taken:
            asked = None if mask is None or not found["asked"] else self._interpolated(method, rows, step, mask, h)
            self._record(method, rows, step, s, t, H, None if taken == b else good, asked, sides)
            if lands:
                self._landed(rows, s, step, good)
        event = None
        if self.events is not None and taken:
            event = self._event(method, rows, step, good, t, H, a, sides)
        if arrived is not None and found["arrived"]:
            step = self._beyond(method, rows, step, s, a, arrived)
        if taken == b and not refused:
            rows.y, rows.first, rows.s, rows.h = step.y, step.last, s, rows_h
            if adapts:
                rows.most = torch.maximum(rows.most, ratio)
                rows.log1, rows.log2 = log if log is not None else rows.log1, rows.log1
            going = b - found["done"]
        else:
            if log is not None and control.controller != "i":
                factor = growth((log, log, log), "i", method.control)
            self._mixed(rows, step, reached, h, rows_h, ratio, log, factor, good, found["cut"] > 0)
            going = int(rows.going.sum()) if rows.stopped else b - found["done"]
        if event is not None:
            going = self._ended(rows, *event)
        if found.get("stiff", 0):
            gone = (rows.limited >= STIFF_AFTER) & (1 - rows.s > WORTH * rows.h) & (rows.h > 0)
            rows.stop(gone, torch.full_like(rows.status, int(Outcome.STIFF)))
            going = int(rows.going.sum())
        if going and adapts and (control.min_step is not None or attempts % PATIENCE == 0):
            rows.stop(control.small(rows.s, rows.h, rows.span), self._why(rows))
            going = int(rows.going.sum())
        if going and attempts >= control.max_steps:
            rows.stop(rows.going, torch.full_like(rows.status, int(Outcome.MAX_STEPS)))
            going = 0
        return going, taken < b

    def _beyond(self, method: Method, rows: Rows, step: Step, s: Tensor, a: Inputs, arrived: Tensor) -> Step:
        """The step with f on the other side of the kinks at which rows have arrived."""
        assert rows.kinks is not None
        r = arrived.nonzero().view(-1)
        at, t0, span, dtype = s[r], rows.t0[r], rows.span[r], step.y.dtype
        problem = within(self.problem, rows.kinks.take(r).sides(at, span, dtype))
        t = torch.addcmul(t0, at, span).to(dtype)[:, 0]
        self.nfe[rows.ids[r]] += 1
        last = method.first(problem, t, step.y[r], self.problem.rows(a, r))
        return step._replace(last=step.last.index_copy(0, r, last))

    def _mixed(
        self,
        rows: Rows,
        step: Step,
        reached: Tensor,
        h: Tensor,
        new: Tensor,
        ratio: Tensor,
        log: Tensor | None,
        factor: Tensor | None,
        good: Tensor,
        cut: bool,
    ) -> None:
        """The new state where some rows were refused, now or before. `factor`: the change of a refused step by its own
        error; `cut`: whether a refused step may have become too small.
        """
        before = rows.h
        rows.y, rows.first = torch.where(good, step.y, rows.y), torch.where(good, step.last, rows.first)
        rows.s = reached
        if log is not None and factor is not None:
            again = self.control.above(h * factor.clamp(max=0.9), rows.span)
            rows.h = torch.where(good, new, again)
            rows.most = torch.maximum(rows.most, torch.where(good, ratio, 0.0))
            rows.log1, rows.log2 = torch.where(good, log, rows.log1), torch.where(good, rows.log1, rows.log2)
        if not cut:
            return
        small, why = ~good, torch.full_like(rows.status, int(Outcome.DIVERGED))
        if log is not None:
            small = small & (self.control.small(rows.s, rows.h, rows.span) | self.control.least(h, rows.span))
            why = self._why(rows)
        rows.stop(small & (before > 0), why)

    def _why(self, rows: Rows) -> Tensor:
        """Of a row whose steps have become too small: DIVERGED where its state has grown, (b,)."""
        grown = torch.linalg.vector_norm(rows.y, dim=1)
        size = torch.linalg.vector_norm(self.y0[rows.ids], dim=1)
        return torch.where(grown > 1e3 * (1 + size), int(Outcome.DIVERGED), int(Outcome.STEP_UNDERFLOW))

    def _event(
        self,
        method: Method,
        rows: Rows,
        step: Step,
        good: Tensor,
        t: Tensor,
        H: Tensor,
        a: Inputs,
        sides: Sides | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """(rows (m,), s there (m, 1), states (m, N), which event) of the events inside this step; None: there are none.

        The place on the interpolant is corrected by Newton's method on steps that end there.
        """
        assert self.events is not None
        hit, theta, which = self.events.within(t, H, rows.y, rows.first, step, a)
        r = (hit & good[:, 0]).nonzero().view(-1)
        if len(r) == 0:
            return None
        t, H, y, first, which = t[r], H[r], rows.y[r], rows.first[r], which[r]
        mine, part = self.problem.rows(a, r), theta[r].unsqueeze(1)
        problem = within(self.problem, None if sides is None else sides.rows(r))
        part, at = self.events.polished(problem, method, t, H, y, first, part, which, mine)
        s = rows.s[r] + part.double() * (H.double() / rows.span[r])
        return r, s, at, which

    def _ended(self, rows: Rows, r: Tensor, s: Tensor, y: Tensor, which: Tensor) -> int:
        """Rows r have come to an event. How many go on."""
        rows.s, rows.y = rows.s.index_copy(0, r, s), rows.y.index_copy(0, r, y)
        rows.h, rows.stopped = rows.h.index_fill(0, r, 0.0), True
        rows.status = rows.status.index_fill(0, r, CONVERGED)
        self.fired[rows.ids[r]] = which
        return int(rows.going.sum())

    def _landed(self, rows: Rows, s: Tensor, step: Step, good: Tensor) -> None:
        """Outputs at which a step ended."""
        assert self.out is not None
        hit = (rows.at == s) & good & (rows.at < 1)
        self.out[rows.ids] = torch.where(hit.unsqueeze(-1), step.y.unsqueeze(1), self.out[rows.ids])
        self.filled[rows.ids] |= hit

    def _interpolated(
        self, method: Method, rows: Rows, step: Step, mask: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs inside a step: (rows, columns, θ)."""
        assert self.out is not None
        assert method.interpolant is not None
        assert step.K is not None
        r, c = mask.nonzero().unbind(1)
        theta = ((rows.at[r, c] - rows.s[r, 0]) / h[r, 0]).to(rows.y.dtype)
        weights = interpolate(method.interpolant, theta, rows.y)
        self.out[rows.ids[r], c] = rows.y[r] + (weights.unsqueeze(-1) * step.K[:, r]).sum(0)
        self.filled[rows.ids[r], c] = True
        return r, c, theta

    def _record(
        self,
        method: Method,
        rows: Rows,
        step: Step,
        s: Tensor,
        t: Tensor,
        H: Tensor,
        good: Tensor | None,
        asked: tuple[Tensor, Tensor, Tensor] | None,
        sides: Sides | None,
    ) -> None:
        """Put the step on the tape; `good`: of these rows only."""
        if self.tape is None:
            return
        ids = rows.ids if len(rows.ids) < len(self.status) else None
        y, Z, kept, snapshots = rows.y, step.Z, step.kept, self.tape.budget is not None
        if snapshots:
            y, Z = self.end.index_copy(0, rows.ids, y), None
        if good is not None:
            keep = good[:, 0].nonzero().view(-1)
            ids, s, t, H = rows.ids[keep], s[keep], t[keep], H[keep]
            y, Z = y if snapshots else y[keep], None if Z is None else Z[:, keep]
            asked = None if asked is None else ((good[:, 0].cumsum(0) - 1)[asked[0]], *asked[1:])
            sides = None if sides is None else sides.rows(keep)
            kept = None if kept is None else tuple(tuple(x[keep] for x in stage) for stage in kept)
        entry = Taken(method, ids, s, t, H, y, Z, asked, sides, kept)
        self.tape.append(entry)

    def _settle(self, method: Method, rows: Rows, attempts: int) -> None:
        """Write back the rows that are finished or done for."""
        gone = ((rows.s >= 1) | (rows.h <= 0)).view(-1).nonzero().view(-1)
        ids = rows.ids[gone]
        self.end[ids], self.s[ids], self.error[ids] = rows.y[gone], rows.s[gone], rows.most[gone]
        self.status[ids] = torch.where(rows.s[gone, 0] >= 1, CONVERGED, rows.status[gone])
        self.steps[ids] += attempts
        self.nfe[ids] += attempts * method.evaluations


def integrate(
    problem: OdeProblem,
    methods: tuple[Method, ...],
    a: Inputs,
    y0: Tensor,
    places: Places,
    control: Control,
    tape: Tape | None = None,
    events: Events | None = None,
) -> Ended:
    """Solve dy/dt = f from y0 (B, N) at `places`. Rows that the first method finds stiff go on with the next.

    Nothing is differentiated; `tape` records the steps. A row ends at the first of `events`, and its time says where;
    `fired` which one it was, -1: none. Cost: one host synchronisation a step.
    """
    run = Integration(problem, a, y0, places, control, tape, events)
    for k, method in enumerate(methods):
        run.run(method, k, last=k == len(methods) - 1)
    return run.result()
