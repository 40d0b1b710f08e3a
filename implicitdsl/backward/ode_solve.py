"""States of a differential equation with their exact derivatives: those of the steps that were taken."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..solvers.ode.adaptive import integrate
from ..solvers.ode.control import Control
from ..solvers.ode.events import Events
from ..solvers.ode.explicit import Explicit
from ..solvers.ode.method import Method
from ..solvers.ode.problem import OdeProblem
from ..solvers.ode.replay import Segment, replay, segments
from ..solvers.ode.traced import integrate_traced
from ..solvers.ode.trajectory import Ended, Places, Tape
from ..solvers.problem import Inputs
from .backsolve import DRIFT, backsolve
from .discrete_adjoint import Undone, discrete_adjoint
from .failure import Failures
from .ode_compiled import Traced, compiled_solve
from .ode_failure import report_drift, report_unfinished
from .rules import merge, plain, split


@dataclass(frozen=True)
class Checkpointed:
    """Discrete adjoint over the steps taken. `budget`: at most so many states are kept, the others computed again."""

    budget: int | None = None


@dataclass(frozen=True)
class UnrolledSteps:
    """Autograd through every step: the same gradient, with the memory of every stage."""


@dataclass(frozen=True)
class Backsolve:
    """The adjoint equation backwards in time, with explicit steps of its own: no state is kept but the outputs."""


@dataclass(frozen=True)
class Reversible:
    """Discrete adjoint over the steps taken, which are undone one by one: no state is kept but the last. For
    time-symmetric methods.
    """


Backward = Checkpointed | UnrolledSteps | Backsolve | Reversible


@dataclass(frozen=True)
class OdeSolve:
    """Everything about an integration that is not a tensor."""

    problem: OdeProblem
    methods: tuple[Method, ...]
    control: Control = field(default_factory=Control)
    backward: Backward = field(default_factory=Checkpointed)
    failures: Failures = field(default_factory=Failures)

    def integrate(self, y0: Tensor, places: Places, a: Inputs, tape: Tape | None) -> Ended:
        return integrate(self.problem, self.methods, a, y0, places, self.control, tape)


def places_of(t0: Tensor, ts: Tensor, toward: Tensor | None = None) -> Places:
    """Where t0 (B,) and ts (B, K) lie: the span reaches to the furthest of the times on the side of t0 on which
    `toward` (B,) lies; times on the other side are below 0. None, or at t0: either side, that of the furthest.
    """
    begin, times = t0.detach().double(), ts.detach().double()
    gone = times - begin.unsqueeze(1)
    if toward is None and ts.shape[1] == 1:
        return Places(begin, gone[:, 0], torch.ones_like(gone))
    span = gone.gather(1, gone.abs().argmax(1, keepdim=True))
    if toward is None:
        at = torch.where(gone == span, 1.0, gone / torch.where(span == 0, 1.0, span))
        return Places(begin, span[:, 0], at)
    sense = torch.sign(toward.detach().double() - begin).unsqueeze(1)
    along = gone * torch.where(sense == 0, torch.sign(span), sense)
    top, furthest = along.max(1, keepdim=True)
    length = top.abs()  # of times that are all on the wrong side, too: they stay below 0
    at = torch.where(along == length, 1.0, along / torch.where(length == 0, 1.0, length))
    return Places(begin, gone.gather(1, furthest)[:, 0], at)


def ode_solve(
    spec: OdeSolve, y0: Tensor, t0: Tensor, ts: Tensor, a: Inputs, toward: Tensor | None = None
) -> tuple[Tensor, Ended]:
    """States (B, K, N) at the times ts (B, K) of dy/dt = f(t, y; a), y(t0) = y0, and how the integration ended.
    `toward` (B,): a row that asks for times on the other side of t0 fails; see `places_of`.

    Steps are chosen row by row, without derivatives; the states are then differentiated as functions of y0, a, t0 and
    ts with the steps at fixed parts of the span, to any order: VJP (by the discrete adjoint; where it is differentiated
    again, or by t0 and ts, through the steps taken again), JVP, vmap and their compositions.
    Cost of a VJP: one evaluation and one VJP of f a stage. Failed rows: see `Failures`.
    """
    if torch.compiler.is_compiling():
        return _traced(spec, y0, t0, ts, a, toward)
    if plain() and not isinstance(spec.backward, UnrolledSteps):
        found: list[Ended] = []
        y = _Plain.apply(found, spec, places_of(t0, ts, toward), y0, t0, ts, *a)
        return y, found[0]
    places = places_of(t0, ts, toward)
    given = y0.detach(), *places, *(x.detach() for x in a)
    status, steps, error, nfe, time, rung, *nodes = _Steps.apply(spec, *given)
    taken = [Segment(m, n) for m, n in zip(spec.methods, nodes, strict=True)]
    y = replay(spec.problem, taken, a, y0, t0, ts, places.at)
    ended = Ended(y, y[:, -1], status, steps, error, nfe, time, rung)
    if not torch._C._are_functorch_transforms_active():
        ended = report_unfinished(ended, spec.failures)
    return ended.y, ended._replace(y=ended.y.detach())


def _traced(
    spec: OdeSolve, y0: Tensor, t0: Tensor, ts: Tensor, a: Inputs, toward: Tensor | None
) -> tuple[Tensor, Ended]:
    """The same in a compiled graph."""
    traced = Traced(spec.problem, _traceable(spec), spec.control)
    ended = compiled_solve(traced, y0, t0, ts, places_of(t0, ts, toward), a)
    ended = report_unfinished(ended, spec.failures)
    return ended.y, ended._replace(y=ended.y.detach())


def event_times(
    spec: OdeSolve, events: Events, y0: Tensor, t0: Tensor, end: Tensor, a: Inputs
) -> tuple[Tensor, Tensor]:
    """When each row meets its first event (B,), or `end`; and which one it is, -1: none. Without derivatives."""
    if torch.compiler.is_compiling():
        with torch.no_grad():
            return _traced_events(spec, events, y0.detach(), t0.detach(), end.detach(), tuple(x.detach() for x in a))
    found, fired = _Events.apply(spec, events, y0.detach(), t0.detach(), end.detach(), *(x.detach() for x in a))
    return found, fired


def _traced_events(
    spec: OdeSolve, events: Events, y0: Tensor, t0: Tensor, end: Tensor, a: Inputs
) -> tuple[Tensor, Tensor]:
    """The same in a compiled graph."""
    methods = _traceable(spec)
    places, none = places_of(t0, end.unsqueeze(1)), tuple(0 for _ in methods)
    ended, *_ = integrate_traced(spec.problem, methods, a, y0, places, spec.control, none, events)
    assert ended.fired is not None
    return torch.where(ended.fired >= 0, ended.time.to(end), end), ended.fired


def _traceable(spec: OdeSolve) -> tuple[Method, ...]:
    """Without ∂f/∂y in closed form, no implicit method takes over."""
    closed = spec.problem.jacobian is not None
    return tuple(m for i, m in enumerate(spec.methods) if i == 0 or closed or not m.implicit)


class _Events(torch.autograd.Function):
    """Event times, without derivatives. What goes wrong on the way is said by the solve that ends there."""

    @staticmethod
    def forward(
        spec: OdeSolve, events: Events, y0: Tensor, t0: Tensor, end: Tensor, *a: Tensor
    ) -> tuple[Tensor, Tensor]:
        places = places_of(t0, end.unsqueeze(1))
        ended = integrate(spec.problem, spec.methods, a, y0, places, spec.control, None, events)
        assert ended.fired is not None
        return torch.where(ended.fired >= 0, ended.time.to(end), end), ended.fired

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, ...]:
        raise AssertionError("nothing here is differentiable")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: OdeSolve, events: Events, *tensors: Tensor) -> Any:
        batch = tensors[0].shape[0 if in_dims[2] != 0 else 1]
        merged = merge(info.batch_size, batch, in_dims[2:], tensors, (1, 0, 0, *spec.problem.ranks))
        return split(info.batch_size, _Events.apply(spec, events, *merged))


class _Plain(torch.autograd.Function):
    """Where no transform is active."""

    @staticmethod
    def forward(
        ctx: Any, found: list[Ended], spec: OdeSolve, places: Places, y0: Tensor, t0: Tensor, ts: Tensor, *a: Tensor
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        tape = _tape(spec.backward) if any(ctx.needs_input_grad) else None
        ended = report_unfinished(spec.integrate(y0, places, a, tape), spec.failures)
        found.append(ended)
        ctx.spec, ctx.tape, ctx.places, ctx.good = spec, tape, places, ended.converged
        ctx.end = ended.end if isinstance(spec.backward, Reversible) else None
        y = ended.y if isinstance(spec.backward, Backsolve) else y0
        ctx.save_for_backward(y, y0, t0, ts, *a)
        return ended.y

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        y, y0, t0, ts, *inputs = ctx.saved_tensors
        spec: OdeSolve = ctx.spec
        a = tuple(inputs)
        tape: Tape | None = ctx.tape
        places: Places = ctx.places
        needs = ctx.needs_input_grad[3:]
        if g is None:
            return (None,) * (3 + len(needs))
        if isinstance(spec.backward, Backsolve) and not torch.is_grad_enabled():
            return None, None, None, *_backsolved(spec, y, y0, t0, ts, a, needs, places, ctx.good, g)
        if tape is None:  # to differentiate the gradient, the steps are needed after all
            tape = Tape(states=False)
            with torch.no_grad():
                spec.integrate(y0, places, a, tape)
        if torch.is_grad_enabled() or needs[1] or needs[2] or (spec.problem.kinks and needs[-1]):
            taken = segments(tape.entries, spec.methods, len(y0), y0.device)
            wanted = [x for x, need in zip((y0, t0, ts, *a), needs, strict=True) if need]
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                given = [x if again else x.detach().requires_grad_(x.is_floating_point()) for x in (y0, t0, ts, *a)]
                y = replay(spec.problem, taken, tuple(given[3:]), given[0], given[1], given[2], places.at)
                wanted = [x for x, need in zip(given, needs, strict=True) if need]
                grads = torch.autograd.grad(y, wanted, g, create_graph=again, allow_unused=True)
            left = iter(grads)
            return None, None, None, *(next(left) if need else None for need in needs)
        undone = None if ctx.end is None else Undone(spec.problem, tape.entries, a, ctx.end)
        begin, cotangents = discrete_adjoint(spec.problem, tape, a, needs[3:], places.at, g, undone)
        if undone is not None:
            report_drift(_apart(undone.states, y0), undone.states, ctx.good, spec.failures, "steps were undone")
        return None, None, None, begin, None, None, *cotangents


def _tape(backward: Backward) -> Tape | None:
    """What a backward rule wants of the steps."""
    if isinstance(backward, Backsolve):
        return None
    return Tape(backward.budget) if isinstance(backward, Checkpointed) else Tape(states=False)


def _apart(y: Tensor, other: Tensor) -> Tensor:
    """The relative distance of each row, in units of √eps."""
    gap = torch.linalg.vector_norm((y - other).double(), dim=1)
    return gap / (torch.linalg.vector_norm(other.double(), dim=1) + 1.0) / torch.finfo(y.dtype).eps ** 0.5


def _backsolved(
    spec: OdeSolve,
    y: Tensor,
    y0: Tensor,
    t0: Tensor,
    ts: Tensor,
    a: Inputs,
    needs: tuple[bool, ...],
    places: Places,
    good: Tensor,
    g: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradients of y0, t0, ts and a by the adjoint equation. Under `nan` those of rows that drift are NaN."""
    problem, method = spec.problem, spec.methods[0]
    assert isinstance(method, Explicit)
    lam, cotangents, drift, came = backsolve(problem, method, spec.control, a, needs[3:], y0, y, places, good, g)
    lam = report_drift(
        torch.where(came, drift / DRIFT, torch.inf), lam, good, spec.failures, "the states were integrated"
    )
    begin = None if not needs[1] else -(lam * problem.rate(t0, y0, *a)).sum(1)
    times = None
    if needs[2]:
        at_outputs = [(g[:, k] * problem.rate(ts[:, k], y[:, k], *a)).sum(1) for k in range(ts.shape[1])]
        times = torch.stack(at_outputs, 1)
    return lam, begin, times, *cotangents


class _Steps(torch.autograd.Function):
    """The steps alone, without derivatives: status, steps, error, nfe, time, rung, and nodes for each method."""

    @staticmethod
    def forward(spec: OdeSolve, y0: Tensor, begin: Tensor, span: Tensor, at: Tensor, *a: Tensor) -> tuple[Tensor, ...]:
        tape = Tape()
        tape.room = 0
        ended = spec.integrate(y0, Places(begin, span, at), a, tape)
        nodes = segments(tape.entries, spec.methods, len(y0), y0.device)
        return ended.status, ended.steps, ended.error, ended.nfe, ended.time, ended.rung, *(s.nodes for s in nodes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.count = len(output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, ...]:
        raise AssertionError("nothing here is differentiable")

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        return (None,) * ctx.count

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: OdeSolve, *tensors: Tensor) -> Any:
        y0 = tensors[0]
        batch = y0.shape[0 if in_dims[1] != 0 else 1]
        ranks = (1, 0, 0, 1, *spec.problem.ranks)
        merged = merge(info.batch_size, batch, in_dims[1:], tensors, ranks)
        return split(info.batch_size, _Steps.apply(spec, *merged))
