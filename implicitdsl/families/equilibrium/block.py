"""One `find` of equations at run time: invariants by autograd, the solve with its implicit derivative, the report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level

from implicitdsl.backward.failure import Failures, report_unsolved
from implicitdsl.backward.implicit import Implicit, implicit_solve
from implicitdsl.backward.inexact import Phantom, Unrolled
from implicitdsl.backward.marking import marked
from implicitdsl.families.call import Call, kind_of
from implicitdsl.families.noise import Layout
from implicitdsl.families.opaque import Noise, Opaques, UnsteadyError
from implicitdsl.families.twice import twice
from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.errors import ConvergenceError, SpecError, SpecWarning
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.ground.render import text as render_text
from implicitdsl.ground.source import Source, Span
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import Solved

from .closed import Made, closed, problem_of
from .linearised import AtSolution
from .roots import Inside, Regions

Backward = Implicit | Phantom | Unrolled

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Recipe:
    """All that is known of a block before tensors come.

    `system` names the inputs of residual and step with their core ranks; `invariants` is computed before and gives
    `hoisted`; `start` gives the first iterate. `unknowns` are names and shapes, in packing order. `activation` is the σ
    of z = σ(W z + h), where operator splitting needs it.
    """

    program: Program
    system: Call
    ranks: tuple[int, ...]
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    regions: Regions
    invariants: Call | None
    hoisted: tuple[str, ...]
    start: Call | None
    explicit: bool
    activation: str | None
    diagonal: bool
    affine: bool
    solver: Solver | None
    methods: tuple[str, ...]
    backward: Backward
    failures: Failures
    source: Source
    places: Mapping[str, Span]
    given: tuple[tuple[str, int], ...] = ()  # what the block is given, with core ranks: without invariants
    rate: float | None = None  # a contraction rate that is proved wherever the unknowns are


class EquilibriumBlock:
    """Runs a recipe. Stateless but for what it has learnt about bound functions; pickles."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._probed: set[int] = set()  # sets of functions that hide no trained tensor
        self._layouts: dict[int, tuple[Layout, ...]] = {}  # what sets of functions draw
        self._made: Made | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "_probed": set(), "_layouts": {}, "_made": None}

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
        """See `lowering.layer.BlockRunner`."""
        kind = kind_of(values)
        if kind in HALF:  # no factorisation exists in half precision
            wide = {k: v.float() for k, v in values.items()}
            begin = None if start is None else {k: v.float() for k, v in start.items()}
            found, report = self._run(wide, functions, batch, begin, want_report)
            return {k: v.to(kind) for k, v in found.items()}, report
        return self._run(values, functions, batch, start, want_report)

    def _run(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        recipe = self.recipe
        if recipe.invariants is not None:
            computed = self._call(recipe.invariants, values, functions)
            computed = computed if len(recipe.hoisted) > 1 else (computed,)
            values = {**values, **dict(zip(recipe.hoisted, computed, strict=True))}
        a = tuple(values[name] for name in recipe.system.inputs)
        rows = 1 if batch is None else batch
        tracing = torch.compiler.is_compiling()
        at: tuple[AtSolution, ...] | None = None if tracing else ()
        try:
            if recipe.explicit:
                z, solved = self._explicit(a, functions, rows)
            else:
                problem, every, z, solved = self._solve(values, a, functions, rows, start)
                if want_report and not tracing:
                    names = ", ".join(name for name, _ in recipe.unknowns)
                    at = (AtSolution(problem, z, every, names, batch is None, recipe.rate),)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                lost = error.solution
                error.solution = self._unpacked(lost.z, batch), report(lost, batch, recipe.methods)
            raise
        if recipe.failures.policy == "nan" and not recipe.explicit:
            z = marked(z, solved, [values[name] for name, rank in recipe.given if values[name].dim() > rank])
        made = report(solved, batch, recipe.methods, at) if want_report else None
        return self._unpacked(z, batch), made

    def _call(self, call: Call, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> Any:
        given = (values[name] for name in call.inputs)
        return self.recipe.program[call.name](*given, *(functions[f] for f in call.opaques))

    # -- explicit equations --------------------------------------------------------------------------------------------

    def _explicit(self, a: Inputs, functions: Mapping[str, Bound], rows: int) -> tuple[Tensor, Solved]:
        """The equations evaluated once; what lies outside its set is a failure all the same."""
        recipe = self.recipe
        size = sum(math.prod(shape) for _, shape in recipe.unknowns)
        opaques = [functions[f] for f in recipe.system.opaques]
        like = a[0] if a else torch.empty(())
        z = recipe.program["step"](like.new_zeros(rows, size), *a, *opaques)
        z = z if z.dim() == 2 and z.shape[0] == rows else z.expand(rows, size)
        status = torch.zeros(rows, dtype=torch.int64, device=z.device)
        if not recipe.regions.free:
            status = torch.where(recipe.regions.contain(z.detach()), status, int(Outcome.OUTSIDE))
        zero = torch.zeros_like(z[:, 0]).detach()
        solved = Solved(z, status, torch.zeros_like(status), zero, torch.ones_like(status))
        return (z if recipe.regions.free else report_unsolved(solved, recipe.failures).z), solved

    # -- solves --------------------------------------------------------------------------------------------------------

    def _solve(
        self,
        values: Mapping[str, Tensor],
        a: Inputs,
        functions: Mapping[str, Bound],
        rows: int,
        start: Mapping[str, Tensor] | None,
    ) -> tuple[RootProblem, Inputs, Tensor, Solved]:
        """The problem with its inputs, and its solution."""
        recipe = self.recipe
        assert recipe.solver is not None
        z0 = self._start(values, a, rows, start)
        if recipe.system.opaques:
            made = self._opened(a, Opaques({name: functions[name] for name in recipe.system.opaques}), z0)
        else:
            made = self._closed(z0)
        solver = recipe.solver
        if made.misfit is not None:
            solver = LeastSquares(solver, made.misfit)
        if not recipe.regions.free:
            solver = Inside(solver, recipe.regions)
        every, backward, failures = (*a, *made.extra), recipe.backward, recipe.failures
        if isinstance(backward, Implicit):
            z, solved = implicit_solve(made.problem, solver, z0, every, backward=backward, failures=failures)
        else:
            z, solved = backward.solve(made.problem, solver, z0, every, failures)
        return made.problem, every, z, solved

    def _start(self, values: Mapping[str, Tensor], a: Inputs, rows: int, start: Mapping[str, Tensor] | None) -> Tensor:
        """(B, N), detached: a warm start, the expression of `start`, or what the sets say."""
        recipe = self.recipe
        like = a[0] if a else torch.empty(())
        size = sum(math.prod(shape) for _, shape in recipe.unknowns)
        if start is not None and all(name in start for name, _ in recipe.unknowns):
            parts = [start[name].detach().reshape(-1, math.prod(shape)) for name, shape in recipe.unknowns]
            z0 = torch.cat([p.expand(rows, p.shape[1]) for p in parts], dim=-1).to(like)
            return torch.where(z0.isfinite(), z0, recipe.regions.start(like))
        if recipe.start is not None:
            z0 = self._call(recipe.start, {k: v.detach() for k, v in values.items()}, {})
            return z0.expand(rows, size).clone()
        if recipe.regions.free:
            return like.new_zeros(rows, size)
        return recipe.regions.start(like.detach()).expand(rows, size).clone()

    def _closed(self, like: Tensor) -> Made:
        """The problem without bound functions; made once where it holds no tensors."""
        if not self.recipe.regions.free or torch.compiler.is_compiling():
            return closed(self.recipe, like)
        if self._made is None:
            self._made = closed(self.recipe, like)
        return self._made

    def _opened(self, a: Inputs, bound: Opaques, z0: Tensor) -> Made:
        """The problem with bound functions: their parameters and their noise are further inputs."""
        recipe = self.recipe
        parameters = tuple(p.to(z0.dtype) if p.dtype in HALF else p for p in bound.parameters())
        self._probe(a, bound, z0)
        noise = self._noise(a, bound, z0)
        inner, count = len(a), len(parameters)

        def opened(name: str) -> Callable[..., Tensor] | None:
            if name not in recipe.program:
                return None
            generated = recipe.program[name]

            def evaluate(z: Tensor, *every: Tensor) -> Tensor:
                callables = bound.callables(every[inner : inner + count])
                return noise.held(every[inner + count :], generated)(z, *every[:inner], *callables)

            return evaluate

        ranks = (*recipe.ranks, *(p.dim() for p in parameters), *noise.ranks)
        low = max([0.0, *(torch.finfo(f.autocast).eps for f in bound.functions.values() if f.autocast is not None)])
        precision = low if z0.dtype is torch.float32 else 0.0  # autocast leaves float64 as it is
        problem = problem_of(recipe, z0, ranks, residual=opened("residual"), step=opened("step"), precision=precision)
        misfit = opened("misfit")
        squares = None if misfit is None else replace(problem, residual=misfit, step=None)
        return Made(twice(problem), (*parameters, *noise.tensors), squares)

    def _noise(self, a: Inputs, bound: Opaques, z0: Tensor) -> Noise:
        """What the functions draw in this call."""
        if torch.compiler.is_compiling() or len(z0) == 0:
            return Noise()

        def evaluated(name: str) -> Callable[..., Tensor]:
            return lambda z, a, functions: self.recipe.program[name](z, *a, *functions)

        key = bound.key()
        if key not in self._layouts:
            try:
                self._layouts[key] = bound.layouts(evaluated("residual"), z0, a, self.recipe.ranks)
            except UnsteadyError as error:
                message = f"`{error.args[0]}` gives other values at every call, in a way that a solve cannot hold"
                help = "draw random numbers outside and pass them as an input, or by torch.nn.Dropout"
                raise self._refused([error.args[0]], message, help) from None
        step = evaluated("step") if "step" in self.recipe.program else None
        return bound.noise(evaluated("residual"), step, z0, a, self._layouts[key])

    def _probe(self, a: Inputs, bound: Opaques, z0: Tensor) -> None:
        """Refuse functions through which gradients would be lost; once for each set of functions."""
        key = hash(tuple(id(f.module) for f in bound.functions.values()))
        if key in self._probed or torch.compiler.is_compiling():
            return
        inputs = tuple(x.detach() for x in a)
        lost = bound.lost(lambda *fs: self.recipe.program["residual"](z0, *inputs, *fs))
        if lost:
            message = "`{}` uses tensors that require gradients and are not its parameters: their gradient is lost"
            help = "bind an nn.Module that owns them as parameters: compile(…, {}=module)"
            raise self._refused(lost, message, help)
        if maybe_current_level() is not None:  # a transform is at work; the next plain call looks
            return
        for name in bound.detached(lambda *fs: self.recipe.program["residual"](z0, *inputs, *fs)):
            warnings.warn(
                f"[IMP403] `{name}` returns values without a derivative (detach, a comparison?): gradients take "
                "it for a constant",
                SpecWarning,
                stacklevel=2,
            )
        self._probed.add(key)

    def _refused(self, names: Sequence[str], message: str, help: str) -> SpecError:
        place = self.recipe.places
        found = [
            Diagnostic("IMP113", message.format(n), place.get(n, Span(0, 0)), self.recipe.source, help=help.format(n))
            for n in names
        ]
        return SpecError(found, render_text.render(found))

    # -- results -------------------------------------------------------------------------------------------------------

    def _unpacked(self, z: Tensor, batch: int | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        at = 0
        for name, shape in self.recipe.unknowns:
            size = math.prod(shape)
            part = z if size == z.shape[1] else z[:, at : at + size]
            part = part if len(shape) == 1 else part.reshape(z.shape[0], *shape)
            found[name] = part.squeeze(0) if batch is None else part
            at += size
        return found


def report(
    solved: Solved, batch: int | None, methods: Sequence[str], at: tuple[AtSolution, ...] | None = None
) -> Report:
    """A block's report, one entry a sample."""
    names, message = list(methods[:1]), ""
    if solved.rung is not None and len(methods) > 1 and not torch.compiler.is_compiling() and batch != 0:
        later = int(solved.rung.max())
        names = list(methods[: later + 1])
        message = f"{int((solved.rung > 0).sum())} samples went on to {methods[later]}" if later else ""
    residual = solved.residual.detach()
    tensors = (solved.converged, solved.status, solved.iterations, residual, solved.nfe)
    if batch is None:
        tensors = [t.squeeze(0) for t in tensors]
    return Report(*tensors, solver=", ".join(names), message=message, linearised=at)


@dataclass(frozen=True)
class LeastSquares(Solver):
    """Runs `inner` on the equations themselves; the problem it is given is only differentiated."""

    inner: Solver
    misfit: RootProblem

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return self.inner.solve(self.misfit, z0, a)._replace(factor=None)
