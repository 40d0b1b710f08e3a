"""One `find z(t)` at run time: initial state and times by autograd, the integration with its derivative, the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from implicitdsl.backward.ode_failure import report_unfinished
from implicitdsl.backward.ode_solve import OdeSolve, event_times, ode_solve
from implicitdsl.families.call import Call, kind_of
from implicitdsl.families.noise import Layout
from implicitdsl.families.opaque import Noise, Opaques, UnsteadyError
from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.errors import ConvergenceError, SpecError
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.ground.render import text as render_text
from implicitdsl.ground.source import Span
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.solvers.ode.events import Events
from implicitdsl.solvers.ode.exponential import linear_flow
from implicitdsl.solvers.ode.kinks import kinked
from implicitdsl.solvers.ode.problem import OdeProblem
from implicitdsl.solvers.ode.spectral import Eigen, Kept, spectral_flow
from implicitdsl.solvers.ode.trajectory import Ended
from implicitdsl.solvers.problem import Inputs

from .recipe import Recipe, closed, column, full, several

HALF = (torch.float16, torch.bfloat16)


class OdeBlock:
    """Runs a recipe. Stateless but for what it has learnt about bound functions; pickles."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._probed: set[int] = set()
        self._layouts: dict[int, tuple[Layout, ...]] = {}
        self._kept = Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "_probed": set(), "_layouts": {}, "_kept": Kept()}

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated source."""
        return (self.recipe.program.text,)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`. An equation has no start but its initial state."""
        if torch.compiler.is_compiling() and not self.recipe.compiles:
            return _interpreted(self, values, functions, batch, want_report)
        kind = kind_of(values)
        if kind in HALF:  # steps and times need more digits
            found, report = self._run({k: v.float() for k, v in values.items()}, functions, batch, want_report)
            return {k: v.to(kind) for k, v in found.items()}, report
        return self._run(values, functions, batch, want_report)

    def _run(
        self, values: Mapping[str, Tensor], functions: Mapping[str, Bound], batch: int | None, want_report: bool
    ) -> tuple[dict[str, Tensor], Report | None]:
        recipe = self.recipe
        rows = 1 if batch is None else batch
        if recipe.probes:
            values = {**values, **_signs(recipe.probes, rows, next(iter(values.values())))}
        if recipe.invariants is not None:
            computed = self._call(recipe.invariants, values, functions)
            values = {**values, **dict(zip(recipe.hoisted, several(computed, len(recipe.hoisted)), strict=True))}
        y0 = self._call(recipe.start, values, functions)
        y0 = y0 if y0.dim() == 2 else y0.expand(rows, recipe.size)
        times = zip(self._call(recipe.times, values, functions), recipe.time_ranks, strict=True)
        columns = [column(x.to(y0), rank, rows) for x, rank in times]
        t0 = columns[0][:, 0]
        wanted = recipe.wanted
        starts, at, used = {}, 0, []
        for k in wanted:
            width = columns[k].shape[1]
            starts[k], at = (at, at + width), at + width
            used.append(columns[k])
        ts = used[0] if len(used) == 1 else torch.cat(used, 1)
        a = tuple(values[name] for name in recipe.rate.inputs)
        problem, every = self._problem(a, functions, y0, t0)
        if recipe.kinks is not None:
            call, rank = recipe.kinks
            jumps = self._call(call, values, functions).clone()  # compilers refuse an input that comes twice
            problem, every = kinked(problem), (*every, jumps if rank else jumps.unsqueeze(-1))
        if recipe.exact:
            y, ended = self._exactly(problem, y0, columns[:2], used, every, self._spectrum(values))
            made = report(ended, batch, recipe.labels) if want_report else None
            return self._answers(y, problem, every, ts, starts, batch), made
        spec = OdeSolve(problem, recipe.methods, recipe.control, recipe.backward, recipe.failures)
        try:
            if len(recipe.events):
                y, ts, ended = self._until(spec, y0, t0, columns[1][:, 0], ts, starts, every)
            else:
                y, ended = ode_solve(spec, y0, t0, ts, every, None if 1 in starts else columns[1][:, 0])
        except ConvergenceError as error:
            if isinstance(error.solution, Ended):
                lost = error.solution
                found = self._answers(lost.y, problem, every, ts, starts, batch)
                error.solution = found, report(lost, batch, recipe.labels)
            raise
        made = report(ended, batch, recipe.labels) if want_report else None
        return self._answers(y, problem, every, ts, starts, batch), made

    def _exactly(
        self,
        problem: OdeProblem,
        y0: Tensor,
        ends: Sequence[Tensor],
        columns: Sequence[Tensor],
        a: Inputs,
        spectrum: tuple[Tensor, Eigen, bool] | None,
    ) -> tuple[Tensor, Ended]:
        """A linear equation by its matrix exponential. Rows that are not finite, or ask for times before the beginning,
        are named as elsewhere. `ends` (B, 1): of the interval.
        """
        t0, end = ends
        shared = all(c.stride(0) == 0 or len(c) == 1 for c in (t0, *columns))
        ts = torch.cat([c[:1] if shared else c for c in columns], 1) - (t0[:1] if shared else t0)
        at, zero = t0[:, 0], torch.zeros_like(y0)
        tau = ts[0] if shared else ts
        if spectrum is not None:
            scale, eigen, forced = spectrum
            y = spectral_flow(scale, eigen, problem.rate(at, zero, *a) if forced else None, y0, tau)
        else:
            A = problem.matrix_of(at, y0, a)
            h = problem.rate(at, zero, *a)
            if A.dim() == 2 and all(x.dim() == r for x, r in zip(a, problem.ranks, strict=True)):
                h = h[0]  # nothing batched enters
            y = linear_flow(A, h, y0, tau)
        good = y.detach().isfinite().flatten(1).all(1)
        status = torch.where(good, 0, int(Outcome.NOT_FINITE))
        if any(c is not end for c in columns):
            before = (ts * torch.sign(end - t0)).detach() < 0
            status = torch.where(good & before.any(1), int(Outcome.OUTSIDE), status)
            y = torch.where(before.unsqueeze(-1), y0.unsqueeze(1), y)
        one = torch.ones_like(status)
        last = columns[-1][:, -1].detach().expand(len(y0))
        ended = Ended(y, y[:, -1], status, one, torch.zeros_like(last), one, last, torch.zeros_like(status))
        if torch._C._are_functorch_transforms_active():
            return y, ended
        ended = report_unfinished(ended, self.recipe.failures)
        return ended.y, ended

    def _spectrum(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Eigen, bool] | None:
        """The factor of a symmetric constant matrix, its kept eigendecomposition, and whether there are other terms."""
        spectral = self.recipe.spectral
        if spectral is None or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return None
        consts = [values[name] for name in spectral.consts]
        if any(c.requires_grad or c.is_inference() for c in consts):
            return None
        device = next((v.device for v in values.values()), torch.get_default_device())
        eigen = self._kept.of(lambda: self._call(spectral.constant, values, {}), consts, device)
        return None if eigen is None else (self._call(spectral.scale, values, {}), eigen, spectral.forced)

    def _until(
        self,
        spec: OdeSolve,
        y0: Tensor,
        t0: Tensor,
        end: Tensor,
        ts: Tensor,
        starts: Mapping[int, tuple[int, int]],
        a: Inputs,
    ) -> tuple[Tensor, Tensor, Ended]:
        """(states, times, how it went) where an event may end the integration: what lies after it is asked at it.

        The event's time is found without derivatives; then t* = t − g / (dg/dt) and z* = z + f (t* − t) are Newton
        steps of length 0 that carry the first derivatives of g(z(t*), t*) = 0.
        """
        gaps, slopes = self._timed("gaps", a), self._timed("slopes", a)
        found, fired = event_times(spec, Events(gaps, self.recipe.events), y0, t0, end, a)
        happened = fired >= 0
        stop = torch.where(happened, found, end)
        place = starts[1][0]
        late = (ts - stop.unsqueeze(1)) * torch.sign(end - t0).unsqueeze(1) >= 0
        late[:, place] = True
        ts = torch.where(late, stop.unsqueeze(1), ts)
        y, ended = ode_solve(spec, y0, t0, ts, a)
        z, which = y[:, place], fired.clamp(min=0).unsqueeze(1)
        gap = gaps(stop, z, *a).gather(1, which)[:, 0]
        slope = slopes(stop, z, *a).gather(1, which)[:, 0].detach()
        moved = torch.where(happened & (slope != 0), -gap / torch.where(slope == 0, 1.0, slope), 0.0)
        z = z + spec.problem.rate(stop, z, *a).detach() * moved.unsqueeze(1)
        changed = late & happened.unsqueeze(1)
        y = torch.where(changed.unsqueeze(-1), z.unsqueeze(1), y)
        return y, torch.where(changed, (stop + moved).unsqueeze(1), ts), ended

    def _timed(self, name: str, a: Inputs) -> Callable[..., Tensor]:
        """A generated function of (t, y, *a), bound functions as they are."""
        run, moving, inner = self.recipe.program[name], self.recipe.moving, len(self.recipe.ranks)
        count = len(self.recipe.events)

        def evaluate(t: Tensor, y: Tensor, *every: Tensor) -> Tensor:
            value = run(y, *((t,) if moving else ()), *every[:inner])
            return value if value.dim() == 2 else value.expand(len(y), count)

        return evaluate

    def _call(self, call: Call, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> Any:
        given = (values[name] for name in call.inputs)
        return self.recipe.program[call.name](*given, *(functions[f] for f in call.opaques))

    def _answers(
        self,
        y: Tensor,
        problem: OdeProblem,
        a: Inputs,
        ts: Tensor,
        starts: Mapping[int, tuple[int, int]],
        batch: int | None,
    ) -> dict[str, Tensor]:
        """What was asked, by name."""
        recipe = self.recipe
        offsets = [0]
        for shape in recipe.states:
            offsets.append(offsets[-1] + math.prod(shape))
        found: dict[str, Tensor] = {}

        def shaped(value: Tensor, state: int, listed: bool) -> Tensor:
            part = value[..., offsets[state] : offsets[state + 1]]
            part = part.reshape(*part.shape[:-1], *recipe.states[state])
            part = part if listed else part.squeeze(1)
            part = part.squeeze(0) if batch is None else part
            # autograd makes views that leave a compiled graph again, in Python; the copy is none in the graph
            return part.clone() if torch.compiler.is_compiling() else part

        for q in recipe.asked:
            lo, hi = starts[q.time]
            value = y[:, lo:hi]
            if q.rate:
                value = torch.stack([problem.rate(ts[:, k], y[:, k], *a) for k in range(lo, hi)], 1)
            found[q.name] = shaped(value, q.state, q.listed)
        if 1 in starts:
            lo, hi = starts[1]
            for k, name in enumerate(recipe.names):
                if name is not None:
                    found[name] = shaped(y[:, lo:hi], k, False)
            end = ts[:, lo]
            found[recipe.variable] = end.squeeze(0) if batch is None else end
        return found

    # -- the problem ---------------------------------------------------------------------------------------------------

    def _problem(self, a: Inputs, functions: Mapping[str, Bound], y0: Tensor, t0: Tensor) -> tuple[OdeProblem, Inputs]:
        recipe = self.recipe
        if len(recipe.rate.opaques) == 0:
            return closed(recipe), a
        bound = Opaques({name: functions[name] for name in recipe.rate.opaques})
        parameters = tuple(p.to(y0.dtype) if p.dtype in HALF else p for p in bound.parameters())
        generated, moving = recipe.program["rate"], recipe.moving
        self._probe(a, bound, y0, t0)
        noise = self._noise(a, bound, y0, t0)
        inner, count = len(a), len(parameters)

        def rate(t: Tensor, y: Tensor, *every: Tensor) -> Tensor:
            callables = bound.callables(every[inner : inner + count])
            time = (t,) if moving else ()
            run = noise.held(every[inner + count :], generated)
            return full(run(y, *time, *every[:inner], *callables), y)

        ranks = (*recipe.ranks, *(p.dim() for p in parameters), *noise.ranks)
        problem = OdeProblem(rate, ranks, autonomous=not moving, measured=recipe.measured)
        return problem, (*a, *parameters, *noise.tensors)

    def _evaluate(self, t0: Tensor) -> Callable[..., Tensor]:
        """(z, a, functions) -> the rate; the time is the first of `a` where the rate has one."""
        return lambda z, a, functions: self.recipe.program["rate"](z, *a, *functions)

    def _noise(self, a: Inputs, bound: Opaques, y0: Tensor, t0: Tensor) -> Noise:
        """What the functions draw in this call."""
        if torch.compiler.is_compiling() or len(y0) == 0:
            return Noise()
        key, evaluate = bound.key(), self._evaluate(t0)
        given = (t0, *a) if self.recipe.moving else a
        ranks = (0, *self.recipe.ranks) if self.recipe.moving else self.recipe.ranks
        if key not in self._layouts:
            try:
                self._layouts[key] = bound.layouts(evaluate, y0, given, ranks)
            except UnsteadyError as error:
                message = f"`{error.args[0]}` gives other values at every call, in a way that a solve cannot hold"
                help = "draw random numbers outside and pass them as an input, or by torch.nn.Dropout"
                raise self._refused([error.args[0]], message, help) from None
        return bound.noise(evaluate, None, y0, given, self._layouts[key])

    def _probe(self, a: Inputs, bound: Opaques, y0: Tensor, t0: Tensor) -> None:
        """Refuse functions through which gradients would be lost; once for each set of functions."""
        key = hash(tuple(id(f.module) for f in bound.functions.values()))
        if key in self._probed or torch.compiler.is_compiling():
            return
        inputs = tuple(x.detach() for x in ((t0, *a) if self.recipe.moving else a))
        lost = bound.lost(lambda *fs: self.recipe.program["rate"](y0.detach(), *inputs, *fs))
        if lost:
            message = "`{}` uses tensors that require gradients and are not its parameters: their gradient is lost"
            help = "bind an nn.Module that owns them as parameters: compile(…, {}=module)"
            raise self._refused(lost, message, help)
        self._probed.add(key)

    def _refused(self, names: Sequence[str], message: str, help: str) -> SpecError:
        place = self.recipe.places
        found = [
            Diagnostic("IMP113", message.format(n), place.get(n, Span(0, 0)), self.recipe.source, help=help.format(n))
            for n in names
        ]
        return SpecError(found, render_text.render(found))


@torch.compiler.disable(reason="Jacobians without a closed form are not traced")
def _interpreted(block: OdeBlock, values: Any, functions: Any, batch: int | None, want_report: bool) -> Any:
    return block.solve(values, functions, batch, None, want_report)


def _signs(probes: Sequence[tuple[str, tuple[int, ...]]], rows: int, like: Tensor) -> dict[str, Tensor]:
    """Random signs for each row, from torch's generator."""
    return {
        name: torch.randint(0, 2, (rows, *shape), device=like.device).to(like.dtype) * 2 - 1 for name, shape in probes
    }


def report(ended: Ended, batch: int | None, labels: Sequence[str]) -> Report:
    """A block's report, one entry a sample: `residual` is the largest local error in units of the tolerance."""
    names, message = labels[:1], ""
    if len(labels) > 1 and not torch.compiler.is_compiling() and len(ended.rung):
        later = int(ended.rung.max())
        names = labels[: later + 1]
        message = f"{int((ended.rung > 0).sum())} samples proved stiff and went on to {labels[later]}" if later else ""
    error = ended.error.detach()
    made = Report(ended.converged, ended.status, ended.steps, error, ended.nfe, ", ".join(names), message)
    if batch is not None:
        return made
    tensors = (made.converged, made.status, made.iterations, made.residual, made.nfe)
    return Report(*[t.squeeze(0) for t in tensors], solver=made.solver, message=made.message)
