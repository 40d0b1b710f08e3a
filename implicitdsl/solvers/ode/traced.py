"""The loop over steps while `torch.compile` traces: one `while_loop` with masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from ...ground.outcomes import Outcome
from ..carries import fresh_all, turned
from ..problem import Inputs
from .adaptive import LANDED, STEPS, STIFF_AFTER, WORTH
from .control import GAINS, Control, first_step, growth, scaled_error
from .events import Events
from .explicit import Explicit
from .kinks import Kinks, kinks_of, within
from .method import Method
from .problem import OdeProblem
from .rows import verdicts
from .trajectory import CONVERGED, RUNNING, Ended, Places, interpolate

ROOM = 2**28
"""Bytes of states that a tape of steps may hold; a run that needs more stops."""

KEPT, FEW = 2**20, 8
"""Bytes of what is kept of the stages of the first steps, so that a gradient needs not compute them again; nothing is
where that is less than a few steps."""


class Track(NamedTuple):
    """Steps of all rows on a tape of fixed size, of which `used` (1,) count. parts (C, 2, B, 1): of the span, where a
    step begins and ends, equal where a row did not move; states (C, B, N) before each step.
    """

    used: Tensor
    parts: Tensor
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
    stages: tuple[Tensor, ...] = ()


def integrate_traced(
    problem: OdeProblem,
    methods: tuple[Method, ...],
    a: Inputs,
    y0: Tensor,
    places: Places,
    control: Control,
    rooms: tuple[int, ...],
    events: Events | None = None,
    keep: bool = False,
) -> tuple[Ended, tuple[Track, ...], tuple[Tensor, ...]]:
    """As `adaptive.integrate`: the same steps, row by row, in one loop a method. Rows that are finished are carried
    along. `rooms`: each method has a tape for so many steps and stops there; 0: nothing is recorded, see max_steps.
    `keep`: of the first method's first steps the stages are handed back too, see `Explicit.recorded`: (C + 1, …), of
    which the last entry is waste. None where they are too large.
    """
    B, K = places.at.shape
    status, s = verdicts(problem, a, y0, places)
    out = y0.unsqueeze(1).expand(B, K, y0.shape[1])
    zero = torch.zeros_like(status)
    y, steps, nfe, rung, most = y0, zero, zero, zero, torch.zeros_like(s)
    tracks: list[Track] = []
    stages: tuple[Tensor, ...] = ()
    fired = torch.full_like(status, -1)
    for i, (method, room) in enumerate(zip(methods, rooms, strict=True)):
        last = i == len(methods) - 1
        mine = status == RUNNING
        leg = _leg(problem, method, a, y, s, most, out, status, places, control, room, last, events, keep and i == 0)
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
        stages = stages or leg.stages
    states = y.unsqueeze(1)
    if K > 1:
        at = places.at
        states = torch.where(((at >= 1) | ((at > 0) & (at > s))).unsqueeze(-1), states, out)
    time = places.t0 + s[:, 0] * places.span
    return Ended(states, y, status, steps, most[:, 0], nfe, time, rung, fired), tuple(tracks), stages


def _room_for_stages(
    problem: OdeProblem, method: Method, a: Inputs, t: Tensor, y: Tensor, first: Tensor, room: int
) -> tuple[Tensor, ...]:
    """Tapes for `Explicit.recorded` of as many steps as fit, and one more; none where only few do."""
    if not isinstance(method, Explicit) or method.tableau.stages < 2:
        return ()
    like = method.recorded(problem, a, t, torch.zeros_like(y[:, :1]), y, first)[1]
    steps = min(room, KEPT // sum(x.numel() * x.element_size() for x in like))
    return tuple(x.new_empty(steps + 1, *x.shape) for x in like) if steps >= min(room, FEW) else ()


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
    keep: bool = False,
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
    a = tuple(turned(x) if r == 2 else x for x, r in zip(a, problem.ranks, strict=True))
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
        torch.empty(room, 2, B, 1, dtype=torch.float64, device=device),
        torch.empty(room, B, N, dtype=dtype, device=device),
    )
    stages = _room_for_stages(problem, method, a, t, y0, first, room) if keep else ()
    zero, unknown = torch.zeros_like(s), torch.full_like(s, torch.nan)
    start = {"s": s, "h": h, "y": y0, "first": first, "status": status, "steps": torch.zeros_like(status)}
    start.update(most=most, log1=zero, log2=zero, radius=unknown, limited=zero, out=out, caught=zero)
    # a turn of the loop copies what it carries: no more than this method, controller and problem change
    gains = GAINS[control.controller]
    changes = {
        "most": adapts,
        "log1": adapts and gains[1] != 0,
        "log2": adapts and gains[2] != 0,
        "radius": adapts and method.limit is not None,
        "limited": watched,
        "out": inner,
        "caught": events is not None,
    }
    names = tuple(name for name in start if changes.get(name, True))
    large = 1e3 * (1 + torch.linalg.vector_norm(y0, dim=1))

    def going(k: Tensor, s: Tensor, h: Tensor, *_: Tensor) -> Tensor:
        return ((s < 1) & (h > 0)).any() & (k < limit).all()

    def body(k: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
        before = dict(zip(names, carried, strict=True))
        now = dict(before)
        s, h, y, first = carried[:4]
        mine = tuple(x.view_as(x) for x in a)
        begin, length = t0.view_as(t0), span.view_as(span)
        place = at.view_as(at) if inner else at
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
        if stages:
            assert isinstance(method, Explicit)
            step, kept = method.recorded(piece, mine, t, H, y, first)
            slot = k.clamp(max=len(stages[0]) - 1)
            for held, made in zip(stages, kept, strict=True):
                held.index_copy_(0, slot, made.unsqueeze(0))
        else:
            step = method.smooth(piece, mine, t, H, y, first)
        if adapts:
            ratio = scaled_error(step, y, rtol, atol, whole.measured)
            good, log = ratio <= 1, ratio.clamp(min=1e-10).log()
            errors = ratio, log
            logs = (log, now.get("log1", log), now.get("log2", log))
            new = control.above(part * growth(logs, control.controller, method.control), length)
            if lands or known is not None:
                new = torch.where(good & (ahead >= target), torch.maximum(new, h), new)
            if step.stiffness is not None and step.sure is not None and method.limit is not None:
                found, radius = step.stiffness / part, now["radius"]
                bound = method.limit / torch.where(step.sure, found, torch.fmax(found, radius))
                now["radius"] = torch.where(step.sure & running, found, radius)
                if watched:
                    now["limited"] = torch.where(running, (now["limited"] + 1) * (new > bound), now["limited"])
                new = torch.fmin(new, bound)
            again = control.above(part * growth((log, log, log), "i", method.control).clamp(max=0.9), length)
            new = torch.where(good, control.below(new, length), again)
        else:
            errors, good, new = None, step.y.isfinite().all(1, keepdim=True), h
        moved = good & running
        if events is not None:
            hit = events.inside(t, H, y, first, step, mine).unsqueeze(1) & moved
            now["caught"], moved = torch.where(hit, part, now["caught"]), moved & ~hit
        reached = torch.where(moved, ahead, s)
        if room:
            tape.parts.index_copy_(0, k, torch.stack((s, reached)).unsqueeze(0))
            tape.states.index_copy_(0, k, y.unsqueeze(0))
        if inner:
            mask = (place > s) & (place <= ahead) & (place < 1) & moved
            value = step.y.unsqueeze(1)
            if method.interpolant is not None:
                assert step.K is not None
                theta = torch.where(mask, (place - s) / torch.where(part > 0, part, 1.0), 0.0).to(dtype)
                weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
                value = y.unsqueeze(1) + torch.einsum("sbk,sbn->bkn", weights, step.K)
            now["out"] = torch.where(mask.unsqueeze(-1), value, now["out"])
        h = torch.where(running, new, h)
        s = reached
        if adapts:
            small = control.small(s, h, length) | (~good & control.least(part, length))
        else:
            small = ~good
        small = small & running & (s < 1)
        grown = torch.linalg.vector_norm(y, dim=1) > large.view_as(large)
        why = torch.where(
            grown, int(Outcome.DIVERGED), int(Outcome.STEP_UNDERFLOW) if adapts else int(Outcome.DIVERGED)
        )
        status = torch.where(small[:, 0], why, now["status"])
        h = torch.where(small, 0.0, h)
        if watched:
            stiff = (now["limited"] >= STIFF_AFTER) & (1 - s > WORTH * h) & (h > 0)
            status = torch.where(stiff[:, 0], int(Outcome.STIFF), status)
            h = torch.where(stiff, 0.0, h)
        rate = step.last
        if known is not None:
            arrived = known.at(s).any(1, keepdim=True) & moved
            beyond = within(whole, known.sides(s, length, dtype))
            rate = torch.where(arrived, method.first(beyond, (begin + s * length).to(dtype)[:, 0], step.y, mine), rate)
        if events is not None:
            h = torch.where(now["caught"] > 0, 0.0, h)
        if errors is not None:
            ratio, log = errors
            now["most"] = torch.where(moved, torch.maximum(now["most"], ratio), now["most"])
            if "log2" in now:
                now["log2"] = torch.where(moved, now["log1"], now["log2"])
            if "log1" in now:
                now["log1"] = torch.where(moved, log, now["log1"])
        now |= {"s": s, "h": h, "y": torch.where(moved, step.y, y), "first": torch.where(moved, rate, first)}
        now |= {"status": status, "steps": now["steps"] + running[:, 0]}
        return k + 1, *(
            now[name].clone() if now[name] is old else now[name].contiguous() for name, old in before.items()
        )

    k, *found = while_loop(going, body, tuple(fresh_all([tape.used, *(start[name] for name in names)])))
    end = {**start, **dict(zip(names, found, strict=True))}
    y, s, first, status, caught = end["y"], end["s"], end["first"], end["status"], end["caught"]
    leg = Leg(y, s, status, end["steps"], end["most"], end["out"], tape._replace(used=k), stages=stages)
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
