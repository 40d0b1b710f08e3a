"""An integration and its discrete adjoint while `torch.compile` traces: two loops in one graph."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from ..solvers.carries import fresh_all
from ..solvers.ode.control import Control
from ..solvers.ode.explicit import Explicit
from ..solvers.ode.kinks import Kinks, kinks_of, within
from ..solvers.ode.method import Method
from ..solvers.ode.problem import Found, OdeProblem
from ..solvers.ode.traced import Track, capacity, integrate_traced
from ..solvers.ode.trajectory import Ended, Places, interpolate
from ..solvers.problem import Inputs


class Traced(NamedTuple):
    """Everything about a compiled integration that is not a tensor."""

    problem: OdeProblem
    methods: tuple[Method, ...]
    control: Control


def compiled_solve(spec: Traced, y0: Tensor, t0: Tensor, ts: Tensor, places: Places, a: Inputs) -> Ended:
    """The integration with the gradient of the steps that were taken. First order, reverse mode.

    Cost of the gradient: two evaluations and one VJP of f a stage. The tape's memory is `traced.ROOM` at most. Where a
    gradient by times inside the interval is wanted the first method works alone.
    """
    tensors = (y0, t0, ts, *a)
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        none = tuple(0 for _ in spec.methods)
        return integrate_traced(spec.problem, spec.methods, a, y0, places, spec.control, none)[0]
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
    """Outputs: y, end, status, steps, error, nfe, time, rung, and the tracks."""

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
        ended, tracks = integrate_traced(spec.problem, spec.methods, a, y0, places, spec.control, rooms)
        return *ended[:8], *(x for track in tracks for x in track)

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
        begin, span, at, y0, t0, ts, *a = saved[count:]
        needs = ctx.needs_input_grad
        inputs = any(needs[7:])
        timed = needs[5] or needs[6] or (spec.problem.kinks and needs[-1])
        found = transpose(spec, tuple(a), Places(begin, span, at), tracks, y0, g, inputs, timed)
        lam, begin_bar, times_bar, *cotangents = found
        times = (begin_bar.to(t0.dtype), times_bar.to(ts.dtype)) if timed else (None, None)
        return None, None, None, None, lam, *times, *(cotangents if inputs else (None,) * len(a))


def transpose(
    spec: Traced, a: Inputs, places: Places, tracks: list[Track], y0: Tensor, g: Tensor, inputs: bool, timed: bool
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
    for method, track in reversed(list(zip(spec.methods, tracks, strict=True))):
        carried = (lam, begin_bar, span_bar, times_bar, *sums)
        lam, begin_bar, span_bar, times_bar, *sums = _back(spec.problem, method, a, places, track, g, timed, carried)
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
    pull = _pull_explicit if isinstance(method, Explicit) else _pull_step

    def going(k: Tensor, *_: Tensor) -> Tensor:
        return (k > 0).all()

    def body(k: Tensor, lam: Tensor, begin_bar: Tensor, span_bar: Tensor, times_bar: Tensor, *sums: Tensor) -> Any:
        mine = tuple(x.view_as(x) for x in a)
        begin, length = t0.view_as(t0), span.view_as(span)
        place, cotangent = at.view_as(at), g.view_as(g)
        k = k - 1
        s, e = track.starts.index_select(0, k)[0], track.ends.index_select(0, k)[0]
        y = track.states.index_select(0, k)[0]
        part = e - s
        t, H = (begin + s * length).to(dtype)[:, 0], (part * length).to(dtype)
        piece, known = problem, None if kinks is None else Kinks(*(x.view_as(x) for x in kinks))
        if known is not None:
            piece = within(problem, known.sides(s, length, dtype))
        theta = given = direct = None
        if K > 1:
            mask = (place > s) & (place <= e) & (place < 1)
            given = torch.where(mask.unsqueeze(-1), cotangent, 0.0)
            if method.interpolant is None:
                lam, given = lam + given.sum(1), None
            else:
                direct = given.sum(1)
                theta = torch.where(mask, (place - s) / torch.where(part > 0, part, 1.0), 0.0).to(dtype)
        found = pull(piece, method, mine, t, H, y, lam, theta, given, len(sums) > 0, timed)
        lam = found.y if direct is None else found.y + direct
        sums = tuple(x if new is None else x + new for x, new in zip(sums, found.inputs, strict=True))
        if timed:
            assert found.t is not None
            assert found.H is not None
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
        return tuple(x.clone() for x in (k, lam, begin_bar, span_bar, times_bar, *sums))

    carries = (track.used, *carried)
    return while_loop(going, body, tuple(fresh_all(list(carries))))[1:]


class Pulled(NamedTuple):
    """Cotangents of a step's state (b, N), inputs, time (b, 1), length (b, 1), and of the times of outputs (b, K)."""

    y: Tensor
    inputs: tuple[Tensor | None, ...]
    t: Tensor | None = None
    H: Tensor | None = None
    times: Tensor | None = None


def _pull_explicit(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    t: Tensor,
    H: Tensor,
    y: Tensor,
    u: Tensor,
    theta: Tensor | None,
    given: Tensor | None,
    inputs: bool,
    timed: bool,
) -> Pulled:
    """For u, the cotangent of the new state, and `given` (b, K, N), those of outputs at the parts theta (b, K)."""
    assert isinstance(method, Explicit)
    table, count = method.tableau, method.tableau.stages
    c = (0.0, *table.c)
    at = [t if problem.autonomous else t + part * H[:, 0] for part in c]
    reuse = problem.reuse
    Z, F = [y], []
    kept: list[Found] = []

    def evaluate(i: int) -> None:
        found, held = (problem.rate(at[i], Z[i], *a), ()) if reuse is None else reuse.rate(at[i], Z[i], *a)
        F.append(found)
        kept.append(held)

    for i, row in enumerate(table.weights):
        evaluate(i)
        Z.append(y + H * sum((w * F[j] for j, w in row[1:]), row[0][1] * F[row[0][0]]))
    if given is not None:
        evaluate(count)
    later: dict[int, Found] = {}

    def pulled(j: int) -> Tensor:
        if reuse is None:
            return problem.pull_state(at[j], Z[j], H * bars[j], a)
        found, later[j] = reuse.pull(at[j], Z[j], H * bars[j], kept[j], *a)
        return found

    more: list[Tensor] | None = None
    if given is not None and theta is not None:
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        more = list(torch.einsum("sbk,bkn->sbn", weights, given).unbind(0))
    bars: dict[int, Tensor] = {}  # cotangents of the stages' rates, over H
    back: dict[int, Tensor] = {}
    if more is not None:
        bars[count] = more[count]
        u = u + pulled(count)
    total = u
    for j in range(count - 1, -1, -1):
        bar = table.a[-1][j] * u
        for i in range(j + 1, count):
            if table.a[i - 1][j]:
                bar = bar + table.a[i - 1][j] * back[i]
        bars[j] = bar if more is None else bar + more[j]
        back[j] = pulled(j)
        total = total + back[j]
    used = range(len(bars))
    found: tuple[Tensor | None, ...] = ()
    if inputs:
        wide = [x.repeat(len(bars), *(1,) * (x.dim() - 1)) if x.dim() > r else x for x, r in _ranked(problem, a)]
        times, states, u = (torch.cat(x) for x in (at[: len(bars)], Z[: len(bars)], [H * bars[j] for j in used]))
        if reuse is None:
            sums = problem.pull_parameters(times, states, u, tuple(wide))
        else:
            held = tuple(map(torch.cat, zip(*kept[: len(bars)], strict=True)))
            after = tuple(map(torch.cat, zip(*(later[j] for j in used), strict=True)))
            sums = reuse.pull_inputs(times, states, u, held, after, *wide)
        found = tuple(
            p.unflatten(0, (len(bars), -1)).sum(0) if p is not None and x.dim() > r else p
            for p, (x, r) in zip(sums, _ranked(problem, a), strict=True)
        )
    if not timed:
        return Pulled(total, found)
    H_bar, t_bar = torch.zeros_like(H), torch.zeros_like(H)
    for j in used:
        H_bar = H_bar + (bars[j] * F[j]).sum(1, keepdim=True)
        drift = problem.time_derivative(at[j], Z[j], a)
        if drift is not None:
            slope = (H * bars[j] * drift).sum(1, keepdim=True)
            t_bar, H_bar = t_bar + slope, H_bar + c[j] * slope
    times = None
    if theta is not None and given is not None:
        assert method.interpolant is not None
        slopes = _slopes(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        times = torch.einsum("sbk,sbn,bkn->bk", slopes, torch.stack(F), given)  # θ̄ / H
        t_bar, H_bar = t_bar - times.sum(1, keepdim=True), H_bar - (times * theta).sum(1, keepdim=True)
    return Pulled(total, found, t_bar, H_bar, times)


def _pull_step(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    t: Tensor,
    H: Tensor,
    y: Tensor,
    u: Tensor,
    theta: Tensor | None,
    given: Tensor | None,
    inputs: bool,
    timed: bool,
) -> Pulled:
    """The same for a method without a transpose of its own."""

    def step(y: Tensor, t: Tensor, H: Tensor, *a: Tensor) -> tuple[Tensor, ...]:
        found = method.smooth(problem, a, t, H, y, method.first(problem, t, y, a))
        return (found.y,) if theta is None or found.K is None else (found.y, found.K)

    ends, pull = torch.func.vjp(step, y, t, H, *a)[:2]
    moving = (H != 0).view(-1)  # rows that are finished may have grown beyond what a step can bear
    times, cotangents = None, [u]
    if theta is not None and given is not None:
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        cotangents.append(torch.einsum("sbk,bkn->sbn", weights, given))
    y_bar, t_bar, H_bar, *found = pull(tuple(cotangents))
    t_bar = t_bar.unsqueeze(1)
    if timed and theta is not None and given is not None:
        assert method.interpolant is not None
        slopes = _slopes(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        times = torch.einsum("sbk,sbn,bkn->bk", slopes, ends[1], given) / torch.where(H == 0, 1.0, H)
        t_bar, H_bar = t_bar - times.sum(1, keepdim=True), H_bar - (times * theta).sum(1, keepdim=True)
    return Pulled(torch.where(moving.unsqueeze(1), y_bar, u), tuple(found) if inputs else (), t_bar, H_bar, times)


def _ranked(problem: OdeProblem, a: Inputs) -> list[tuple[Tensor, int]]:
    return list(zip(a, problem.ranks, strict=True))


def _last(track: Track) -> Tensor:
    """Where each row stopped, (B, 1)."""
    return track.ends.index_select(0, (track.used - 1).clamp(min=0))[0]


def _slopes(rows: tuple[tuple[float, ...], ...], theta: Tensor, like: Tensor) -> Tensor:
    """b_i'(θ) for θ (m,): (s, m)."""
    powers = torch.stack([(j + 1) * theta**j for j in range(len(rows[0]))])
    return torch.tensor(rows, dtype=like.dtype, device=like.device) @ powers
