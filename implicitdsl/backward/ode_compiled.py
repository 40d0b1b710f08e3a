"""An integration and its discrete adjoint while `torch.compile` traces: two loops in one graph."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from ..solvers.carries import fresh_all, turned
from ..solvers.ode.control import Control
from ..solvers.ode.explicit import Explicit
from ..solvers.ode.kinks import Kinks, kinks_of, within
from ..solvers.ode.method import Method
from ..solvers.ode.problem import OdeProblem
from ..solvers.ode.traced import Track, capacity, integrate_traced
from ..solvers.ode.trajectory import Ended, Places
from ..solvers.problem import Inputs
from .ode_transposes import pull_explicit, pull_step, ranked, stored_stages


class Traced(NamedTuple):
    """Everything about a compiled integration that is not a tensor. `timed`: times may have gradients."""

    problem: OdeProblem
    methods: tuple[Method, ...]
    control: Control
    timed: bool = True


def compiled_solve(spec: Traced, y0: Tensor, t0: Tensor, ts: Tensor, places: Places, a: Inputs) -> Ended:
    """The integration with the gradient of the steps that were taken. First order, reverse mode.

    Cost of the gradient: one VJP of f a stage, and an evaluation where the stages were not kept. The tape's memory is
    `traced.ROOM` at most, that of stages `traced.KEPT`. Where a gradient by times inside the interval is wanted the
    first method works alone.
    """
    tensors = (y0, t0, ts, *a)
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        none = tuple(0 for _ in spec.methods)
        return integrate_traced(spec.problem, spec.methods, a, y0, places, spec.control, none)[0]
    spec = spec._replace(timed=t0.requires_grad or ts.requires_grad or spec.problem.kinks)
    if ts.shape[1] > 1 and (t0.requires_grad or ts.requires_grad):
        spec = spec._replace(methods=spec.methods[:1])
        if spec.methods[0].interpolant is None:
            raise RuntimeError(
                "gradients by output times inside the interval do not compile with a method whose steps end there; "
                "`using dopri5`, `tsit5` or `bosh3` does"
            )
    # an input of the rate that is the initial state or a time too: the compiler refuses a tensor that comes twice
    y, *rest = _Compiled.apply(spec, *places, y0.clone(), t0.clone(), ts.clone(), *a)
    return Ended(y, *rest[:7])


class _Compiled(torch.autograd.Function):
    """Outputs: y, end, status, steps, error, nfe, time, rung, the tracks, and the stages."""

    @staticmethod
    def forward(
        spec: Traced, begin: Tensor, span: Tensor, at: Tensor, y0: Tensor, t0: Tensor, ts: Tensor, *a: Tensor
    ) -> tuple[Tensor, ...]:
        places = Places(begin, span, at)
        B, N = y0.shape
        inner, kinks = ts.shape[1] > 1, spec.problem.kinks
        rooms = tuple(
            capacity(m, spec.control, B, N, y0.element_size(), kinks or (inner and m.interpolant is None))
            for m in spec.methods
        )
        keep = not (spec.timed or inner)
        found = integrate_traced(spec.problem, spec.methods, a, y0, places, spec.control, rooms, keep=keep)
        ended, tracks, stages = found
        return *ended[:8], *(x for track in tracks for x in track), *stages

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec, *tensors = inputs
        ctx.spec = spec
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[8:], *tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        spec: Traced = ctx.spec
        size = len(Track._fields)
        saved, count = ctx.saved_tensors, size * len(spec.methods)
        tracks = [Track(*saved[k : k + size]) for k in range(0, count, size)]
        needs = ctx.needs_input_grad
        given = len(saved) - (len(needs) - 1)
        stages = tuple(saved[count:given])
        begin, span, at, y0, t0, ts, *a = saved[given:]
        inputs = any(needs[7:])
        timed = needs[5] or needs[6] or (spec.problem.kinks and needs[-1])
        found = transpose(spec, tuple(a), Places(begin, span, at), tracks, stages, y0, g, inputs, timed)
        lam, begin_bar, times_bar, *cotangents = found
        times = (begin_bar.to(t0.dtype), times_bar.to(ts.dtype)) if timed else (None, None)
        return None, None, None, None, lam, *times, *(cotangents if inputs else (None,) * len(a))


def transpose(
    spec: Traced,
    a: Inputs,
    places: Places,
    tracks: list[Track],
    stages: tuple[Tensor, ...],
    y0: Tensor,
    g: Tensor,
    inputs: bool,
    timed: bool,
) -> tuple[Tensor, ...]:
    """(cotangents of y0, t0 (B,), ts (B, K), and of the inputs) for g (B, K, N): see `discrete_adjoint`.

    The times move with the steps at fixed parts of the span: t = t0 + s (t1 − t0), H = (e − s)(t1 − t0).
    """
    at = places.at
    reached = torch.zeros_like(at[:, :1])
    for track in tracks:
        reached = torch.maximum(reached, torch.where(track.used.view(1, 1) > 0, _last(track), 0.0))
    at_start = at <= 0
    passed = (at > 0) & (at < 1) & (at <= reached)
    lam = torch.where((at_start | passed).unsqueeze(-1), 0.0, g).sum(1)
    span_bar = torch.zeros_like(places.span).unsqueeze(1)
    begin_bar, times_bar = span_bar, torch.zeros_like(at)
    sums = [torch.zeros_like(x) for x in a] if inputs else []
    for i, (method, track) in reversed(list(enumerate(zip(spec.methods, tracks, strict=True)))):
        carried = (lam, begin_bar, span_bar, times_bar, *sums)
        kept = stages if i == 0 else ()
        found = _back(spec.problem, method, a, places, track, kept, g, timed, carried)
        lam, begin_bar, span_bar, times_bar, *sums = found
    at_zero = torch.where(at_start.unsqueeze(-1), g, 0.0)
    lam = lam + at_zero.sum(1)
    begin_bar, span_bar = begin_bar[:, 0], span_bar[:, 0]
    if timed:
        first = spec.problem.rate(places.t0.to(g.dtype), y0, *a)
        moved = (at_zero * first.unsqueeze(1)).sum(2).double()
        furthest = (at >= 1).to(torch.int64).argmax(1, keepdim=True)
        times_bar = (times_bar + moved).scatter_add(1, furthest, span_bar.unsqueeze(1))
        begin_bar = begin_bar - span_bar - moved.sum(1)
    return lam, begin_bar, times_bar, *sums


def _back(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    places: Places,
    track: Track,
    stages: tuple[Tensor, ...],
    g: Tensor,
    timed: bool,
    carried: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """`carried` (cotangents of the state, t0, the span, ts, and the inputs) before the steps of one method."""
    K, dtype = g.shape[1], g.dtype
    # the C++ wrapper frees views that a loop reads at every turn: copies (torch 2.13)
    read = (places.t0.unsqueeze(1), places.span.unsqueeze(1), places.at, g)
    t0, span, at, g = fresh_all(list(read))
    kinks = kinks_of(problem, a, places.t0, places.span)
    if kinks is not None:
        kinks = Kinks(*fresh_all(list(kinks)))
    a = tuple(turned(x, back=True) if r == 2 else x for x, r in ranked(problem, a))
    pull = pull_explicit if isinstance(method, Explicit) else pull_step

    def going(k: Tensor, *_: Tensor) -> Tensor:
        return (k > 0).all()

    def body(k: Tensor, lam: Tensor, *carried: Tensor) -> Any:
        times, sums = carried[: len(times_bars)], carried[len(times_bars) :]
        mine = tuple(x.view_as(x) for x in a)
        begin, length = t0.view_as(t0), span.view_as(span)
        k = k - 1
        s, e = track.parts.index_select(0, k)[0]
        y = track.states.index_select(0, k)[0]
        part = e - s
        t, H = (begin + s * length).to(dtype)[:, 0], (part * length).to(dtype)
        piece, known = problem, None if kinks is None else Kinks(*(x.view_as(x) for x in kinks))
        if known is not None:
            piece = within(problem, known.sides(s, length, dtype))
        theta = given = direct = None
        if K > 1:
            place, cotangent = at.view_as(at), g.view_as(g)
            mask = (place > s) & (place <= e) & (place < 1)
            given = torch.where(mask.unsqueeze(-1), cotangent, 0.0)
            if method.interpolant is None:
                lam, given = lam + given.sum(1), None
            else:
                direct = given.sum(1)
                theta = torch.where(mask, (place - s) / torch.where(part > 0, part, 1.0), 0.0).to(dtype)
        stored = stored_stages(piece, method, mine, k, t, H, y, stages, len(track.states)) if stages else None
        found = pull(piece, method, mine, t, H, y, lam, theta, given, stored, len(sums) > 0, timed)
        lam = found.y if direct is None else found.y + direct
        sums = tuple(x if new is None else x + new for x, new in zip(sums, found.inputs, strict=True))
        if timed:
            assert found.t is not None
            assert found.H is not None
            begin_bar, span_bar, times_bar = times
            t_bar, H_bar = found.t.double(), found.H.double()
            if known is not None:  # steps that begin or end at a kink move with it and not with the interval
                starts, ends = (torch.where(part > 0, x, 0.0) for x in (t_bar - H_bar, H_bar))
                at_start, at_end = known.at(s), known.at(e)
                if sums:
                    jumps = torch.where(at_start, starts, 0.0) + torch.where(at_end, ends, 0.0)
                    jumps = jumps if mine[-1].dim() == 2 else jumps.sum(0)
                    sums = (*sums[:-1], sums[-1] + jumps.to(sums[-1].dtype))
                starts = torch.where(at_start.any(1, keepdim=True), 0.0, starts)
                ends = torch.where(at_end.any(1, keepdim=True), 0.0, ends)
                begin_bar = begin_bar + starts + ends
                span_bar = span_bar + s * starts + e * ends
            else:
                begin_bar = begin_bar + t_bar
                span_bar = span_bar + s * t_bar + part * H_bar
            if found.times is not None:
                times_bar = times_bar + found.times.double()
            times = (begin_bar, span_bar, times_bar)
        return tuple(x.clone() for x in (k, lam, *times, *sums))

    lam, *bars = carried
    times_bars, sums = (bars[:3], bars[3:]) if timed else ((), bars[3:])
    found = while_loop(going, body, tuple(fresh_all([track.used, lam, *times_bars, *sums])))
    return found[1], *(() if timed else bars[:3]), *found[2:]


def _last(track: Track) -> Tensor:
    """Where each row stopped, (B, 1)."""
    return track.parts.index_select(0, (track.used - 1).clamp(min=0))[0, 1]
