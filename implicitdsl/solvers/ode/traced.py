"""The loop over steps while `torch.compile` traces: one `while_loop` with masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from ...ground.outcomes import Outcome
from ..carries import fresh_all
from ..problem import Inputs
from .adaptive import LANDED, STEPS, STIFF_AFTER, WORTH
from .control import Control, first_step, growth, scaled_error
from .events import Events
from .kinks import Kinks, kinks_of, within
from .method import Method
from .problem import OdeProblem
from .rows import verdicts
from .trajectory import CONVERGED, RUNNING, Ended, Places, interpolate

ROOM = 2**28
"""Bytes of states that a tape of steps may hold; a run that needs more stops."""


class Track(NamedTuple):
    """Steps of all rows on a tape of fixed size, of which `used` (1,) count. starts, ends (C, B, 1): parts of the
    span, equal where a row did not move; states (C, B, N) before each step.
    """

    used: Tensor
    starts: Tensor
    ends: Tensor
    states: Tensor


def capacity(method: Method, control: Control, rows: int, size: int, itemsize: int, lands: bool) -> int:
    """How many steps a tape has room for. `lands`: steps end at times of their own too."""
    if control.dt is None and not lands and not (method.control > 0 and control.steps is None):
        return control.steps or STEPS
    return max(64, min(control.max_steps, ROOM // max(rows * size * itemsize, 1)))


class Leg(NamedTuple):
    """What one method has made of its rows: see `Ended`; s (B, 1): where they are, as a part of the span."""

    y: Tensor
    s: Tensor
    status: Tensor
    steps: Tensor
    most: Tensor
    out: Tensor
    track: Track
    fired: Tensor | None = None


def integrate_traced(
    problem: OdeProblem,
    methods: tuple[Method, ...],
    a: Inputs,
    y0: Tensor,
    places: Places,
    control: Control,
    rooms: tuple[int, ...],
    events: Events | None = None,
) -> tuple[Ended, tuple[Track, ...]]:
    """As `adaptive.integrate`: the same steps, row by row, in one loop a method. Rows that are finished are carried
    along. `rooms`: each method has a tape for so many steps and stops there; 0: nothing is recorded, see max_steps.
    """
    B, K = places.at.shape
    status, s = verdicts(problem, a, y0, places)
    out = y0.unsqueeze(1).expand(B, K, y0.shape[1])
    zero = torch.zeros_like(status)
    y, steps, nfe, rung, most = y0, zero, zero, zero, torch.zeros_like(s)
    tracks: list[Track] = []
    fired = torch.full_like(status, -1)
    for i, (method, room) in enumerate(zip(methods, rooms, strict=True)):
        last = i == len(methods) - 1
        mine = status == RUNNING
        leg = _leg(problem, method, a, y, s, most, out, status, places, control, room, last, events)
        y, s, most, out = leg.y, leg.s, leg.most, leg.out
        fired = fired if leg.fired is None else torch.where(mine, leg.fired, fired)
        rung = torch.where(mine, i, rung)
        steps, nfe = steps + leg.steps, nfe + torch.where(mine, leg.steps * method.evaluations + 2, 0)
        status = torch.where((leg.status == RUNNING) & (s[:, 0] >= 1), CONVERGED, leg.status)
        if last:
            status = torch.where(status == RUNNING, int(Outcome.MAX_STEPS), status)
        else:
            status = torch.where(status == int(Outcome.STIFF), RUNNING, status)
        tracks.append(leg.track)
    states = y.unsqueeze(1)
    if K > 1:
        at = places.at
        states = torch.where(((at >= 1) | ((at > 0) & (at > s))).unsqueeze(-1), states, out)
    time = places.t0 + s[:, 0] * places.span
    return Ended(states, y, status, steps, most[:, 0], nfe, time, rung, fired), tuple(tracks)


def _leg(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    y0: Tensor,
    s: Tensor,
    most: Tensor,
    out: Tensor,
    status: Tensor,
    places: Places,
    control: Control,
    room: int,
    last: bool,
    events: Events | None = None,
) -> Leg:
    """One method, from where the rows are. Unless it is the last, rows that stability limits are given up as STIFF.
    Rows stop before a step that holds an event; it is found in that step afterwards.
    """
    B, N = y0.shape
    inner = places.at.shape[1] > 1
    lands = inner and method.interpolant is None
    rtol, atol = control.tolerances(y0.dtype)
    adapts = method.control > 0 and control.dt is None and control.steps is None
    dtype, device = y0.dtype, y0.device
    # the C++ wrapper frees views that a loop reads at every turn: copies (torch 2.13)
    held = (places.t0.unsqueeze(1), places.span.unsqueeze(1), places.at)
    t0, span, at = fresh_all(list(held))
    t = (t0 + s * span)[:, 0].to(dtype)
    kinks = kinks_of(problem, a, places.t0, places.span)
    if kinks is not None:
        kinks = Kinks(*fresh_all(list(kinks)))
    whole = problem
    problem = within(whole, None if kinks is None else kinks.sides(s, span, dtype))
    first = method.first(problem, t, y0, a)
    if control.dt is not None:
        h = control.dt / span.abs()
    elif not adapts:
        h = torch.full_like(s, 1.0 / (control.steps or STEPS))
    elif control.dt0 is not None:
        h = control.dt0 / span.abs()
    else:
        h = first_step(problem, method, a, t, span.to(dtype), y0, first, rtol, atol)
    if adapts:
        h = control.below(control.above(h, span), span)
    h = torch.where((status == RUNNING).unsqueeze(1), h, 0.0)
    limit = room if room else control.max_steps
    watched = method.limit is not None and not last and adapts
    tape = Track(
        torch.zeros(1, dtype=torch.int64, device=device),
        torch.empty(room, B, 1, dtype=torch.float64, device=device),
        torch.empty(room, B, 1, dtype=torch.float64, device=device),
        torch.empty(room, B, N, dtype=dtype, device=device),
    )
    zero, unknown = torch.zeros_like(s), torch.full_like(s, torch.nan)

    def going(k: Tensor, s: Tensor, h: Tensor, *_: Tensor) -> Tensor:
        return ((s < 1) & (h > 0)).any() & (k < limit).all()

    def body(
        k: Tensor,
        s: Tensor,
        h: Tensor,
        y: Tensor,
        first: Tensor,
        log1: Tensor,
        log2: Tensor,
        most: Tensor,
        status: Tensor,
        steps: Tensor,
        limited: Tensor,
        radius: Tensor,
        out: Tensor,
        caught: Tensor,
    ) -> tuple[Tensor, ...]:
        mine = tuple(x.view_as(x) for x in a)
        begin, length, place = t0.view_as(t0), span.view_as(span), at.view_as(at)
        running = (s < 1) & (h > 0)
        ahead = s + h
        target = torch.ones_like(s)
        if lands:
            target = torch.where(place > s, place, 1.0).amin(1, keepdim=True)
        piece, known = whole, None if kinks is None else Kinks(*(x.view_as(x) for x in kinks))
        if known is not None:
            target = torch.minimum(target, known.ahead(s))
            piece = within(whole, known.sides(s, length, dtype))
        ahead = torch.where(ahead >= target * LANDED, target, ahead)
        part = torch.where(running, ahead - s, 0.0)
        t, H = (begin + s * length).to(dtype)[:, 0], (part * length).to(dtype)
        step = method.smooth(piece, mine, t, H, y, first)
        if adapts:
            ratio = scaled_error(step, y, rtol, atol, whole.measured)
            good, log = ratio <= 1, ratio.clamp(min=1e-10).log()
            new = control.above(part * growth((log, log1, log2), control.controller, method.control), length)
            if lands or known is not None:
                new = torch.where(good & (ahead >= target), torch.maximum(new, h), new)
            if step.stiffness is not None and step.sure is not None and method.limit is not None:
                now = step.stiffness / part
                bound = method.limit / torch.where(step.sure, now, torch.fmax(now, radius))
                radius = torch.where(step.sure & running, now, radius)
                limited = torch.where(running, (limited + 1) * (new > bound), limited)
                new = torch.fmin(new, bound)
            again = control.above(part * growth((log, log, log), "i", method.control).clamp(max=0.9), length)
            new = torch.where(good, control.below(new, length), again)
        else:
            ratio, log, good = most, log1, step.y.isfinite().all(1, keepdim=True)
            new = h
        moved = good & running
        if events is not None:
            hit = events.inside(t, H, y, first, step, mine).unsqueeze(1) & moved
            caught, moved = torch.where(hit, part, caught), moved & ~hit
        reached = torch.where(moved, ahead, s)
        if room:
            tape.starts.index_copy_(0, k, s.unsqueeze(0))
            tape.ends.index_copy_(0, k, reached.unsqueeze(0))
            tape.states.index_copy_(0, k, y.unsqueeze(0))
        if inner:
            mask = (place > s) & (place <= ahead) & (place < 1) & moved
            value = step.y.unsqueeze(1)
            if method.interpolant is not None:
                assert step.K is not None
                theta = torch.where(mask, (place - s) / torch.where(part > 0, part, 1.0), 0.0).to(dtype)
                weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
                value = y.unsqueeze(1) + torch.einsum("sbk,sbn->bkn", weights, step.K)
            out = torch.where(mask.unsqueeze(-1), value, out)
        h = torch.where(running, new, h)
        s = reached
        if adapts:
            small = control.small(s, h, length) | (~good & control.least(part, length))
        else:
            small = ~good
        small = small & running & (s < 1)
        grown = torch.linalg.vector_norm(y, dim=1) > 1e3 * (1 + torch.linalg.vector_norm(y0.view_as(y0), dim=1))
        why = torch.where(
            grown, int(Outcome.DIVERGED), int(Outcome.STEP_UNDERFLOW) if adapts else int(Outcome.DIVERGED)
        )
        status = torch.where(small[:, 0], why, status)
        h = torch.where(small, 0.0, h)
        if watched:
            stiff = (limited >= STIFF_AFTER) & (1 - s > WORTH * h) & (h > 0)
            status = torch.where(stiff[:, 0], int(Outcome.STIFF), status)
            h = torch.where(stiff, 0.0, h)
        rate = step.last
        if known is not None:
            arrived = known.at(s).any(1, keepdim=True) & moved
            beyond = within(whole, known.sides(s, length, dtype))
            rate = torch.where(arrived, method.first(beyond, (begin + s * length).to(dtype)[:, 0], step.y, mine), rate)
        h = torch.where(caught > 0, 0.0, h)
        result = (
            k + 1,
            s,
            h,
            torch.where(moved, step.y, y),
            torch.where(moved, rate, first),
            torch.where(moved, log, log1),
            torch.where(moved, log1, log2),
            torch.where(moved, torch.maximum(most, ratio), most),
            status,
            steps + running[:, 0],
            limited,
            radius,
            out,
            caught,
        )
        kept = (limited, radius, out, status, caught)
        return tuple(x.clone() if any(x is c for c in kept) else x.contiguous() for x in result)

    carries = (tape.used, s, h, y0, first, zero, zero, most, status, torch.zeros_like(status), zero, unknown, out, zero)
    found = while_loop(going, body, tuple(fresh_all(list(carries))))
    k, s, _, y, first, _, _, most, status, steps, _, _, out, caught = found
    leg = Leg(y, s, status, steps, most, out, tape._replace(used=k))
    if events is None:
        return leg
    t, H, happened = (t0 + s * span)[:, 0].to(dtype), (caught * span).to(dtype), caught[:, 0] > 0
    piece = within(whole, None if kinks is None else kinks.sides(s, span, dtype))
    _, theta, which = events.within(t, H, y, first, method.smooth(piece, a, t, H, y, first), a)
    part, there = events.polished(piece, method, t, H, y, first, theta.unsqueeze(1), which, a, smooth=True)
    return leg._replace(
        y=torch.where(happened.unsqueeze(1), there, y),
        s=s + torch.where(caught > 0, part.double() * caught, 0.0),
        status=torch.where(happened, CONVERGED, status),
        fired=torch.where(happened, which, -1),
    )
