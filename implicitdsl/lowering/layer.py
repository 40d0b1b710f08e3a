"""The `nn.Module` that hosts a compiled model: it binds inputs, evaluates sets and definitions, and runs the solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.ground.progress import progress as shown
from implicitdsl.ir.function import Function
from implicitdsl.ir.model import Model

from . import inputs as call
from .bound import Bound, bound, noisy
from .holder import Holder
from .report import Report, Solution, combined, explicit, outputs_type
from .sizes import Observation, mismatch
from .source import Program
from .stages import Stages, Step, make

Values = dict[str, Tensor]


class BlockRunner(Protocol):
    """Solves one block. Made by its family for known sizes; immutable, and picklable with `copy.deepcopy`."""

    @property
    def texts(self) -> Sequence[str]:
        """The source that was generated for it."""
        ...

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[Values, Report | None]:
        """The unknowns, and whatever `stages.queries` asks, by name; a report with one entry a sample if wanted.

        `values` holds inputs, parameters (on their sets), constants, earlier unknowns and definitions by name, each of
        its core shape (shared) or with one leading dimension of `batch` (None: there is no batch at all). `start` has
        earlier unknowns to begin from. On `ConvergenceError` its `.solution` is the pair that would have been returned.
        """
        ...


Lowering = Callable[[Mapping[str, int]], Sequence[BlockRunner]]
"""Makes a runner for each block once all dimensions are known."""


class Layer(Holder):
    """A compiled layer. Call it with its inputs; `solve` gives a report besides.

    Inputs have any leading batch dimensions, which broadcast as in torch; one without any is shared by the batch and
    its gradient is the sum. Parameters are attributes under their names in the spec: `layer.W` is the value on its set,
    and assigning to it checks membership; `parameters()` and `state_dict` hold what an optimiser moves freely.

    `functions`: the language's functions. `lower`: see `Lowering`. `sizes`: dimensions given at compile time; others
    are found at the first call. `bindings`: constants, functions and sub-layers by name. `text`: the completed spec.
    `explain`: from "text", "markdown" or "latex", and the sizes known so far, to the derivation. `debug`: inputs are
    verified to lie in their sets.

    Calls raise TypeError for wrong arguments, ShapeError for wrong shapes, dtypes and devices, naming the declaration.
    """

    def __init__(
        self,
        model: Model,
        *,
        functions: Mapping[str, Function],
        lower: Lowering,
        sizes: Mapping[str, int] | None = None,
        bindings: Mapping[str, Any] | None = None,
        text: str = "",
        explain: Callable[[str, Mapping[str, int]], str] | None = None,
        debug: bool = False,
    ) -> None:
        super().__init__(model, sizes or {}, bindings or {})
        self._text = text
        self._explain = explain
        self._debug = debug
        self._lower: Lowering | None = lower
        self._runners: tuple[BlockRunner, ...] | None = None
        self._checked: tuple[list[Any], tuple[int, ...], int | None] | None = None
        unknown = [d for d in self._dims if d not in self.sizes]
        self._stages: Stages = make(model, functions, self.sizes, unknown)
        self._program = Program(self._title, self._stages.text)
        self._output_ranks = tuple(len(o.expr.shape) for o in model.outputs)
        self._output_type = self._named_tuple()
        self._settle()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs: one is a tensor, several are a named tuple."""
        return self._run(args, kwargs, None, want_report=False)[0]

    def solve(self, *args: Any, start: Any = None, progress: bool = False, **kwargs: Any) -> Solution:
        """The outputs with a report. `start`: an earlier `Solution`, or unknowns as tensor, tuple or mapping.
        `progress`: differential equations show how far they are (see `implicitdsl.progress`). Inputs of these names are
        given by position.
        """
        options = {"start": start is not None, "progress": progress is not False}
        call.by_position(self._title, self._model.givens, args, [name for name, said in options.items() if said])
        with shown(progress) if progress else nullcontext():
            value, report, unknowns = self._run(args, kwargs, start, want_report=True)
        assert report is not None
        return Solution(value, report, unknowns)

    def _run(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], start: Any, *, want_report: bool
    ) -> tuple[Any, Report | None, Values]:
        if torch.compiler.is_compiling() and any(noisy(self._callable(o.name)) for o in self._model.opaques):
            return _interpreted(self, args, kwargs, start, want_report)
        symbols = self._model.givens
        given = call.bind(self._title, symbols, args, kwargs)
        kind = _autocast(given)
        if kind is not None:
            given = self._uncast(given)
        low = None if kind is None else torch.get_autocast_dtype(kind)
        with nullcontext() if kind is None else torch.autocast(kind, enabled=False):
            values, lead, batch = self._bind(given)
            if self._debug:
                self._check_sets(values)
            values.update(self._held_values(symbols, next(iter(values.values()), None)))
            begin = None if start is None else self._start(start, lead, batch)
            return self._solve(values, lead, batch, begin, want_report, low)

    def _bind(self, given: Sequence[Any]) -> tuple[Values, tuple[int, ...], int | None]:
        """Inputs by name with the flat batch, the leading dimensions and their product.

        They are checked, unless those of the call before were of the same shapes, dtypes and devices.
        """
        symbols = self._model.givens
        kinds: list[Any] | None = None
        if not torch.compiler.is_compiling() and all(isinstance(v, Tensor) for v in given):
            kinds = [(v.shape, v.dtype, v.device) for v in given]
            if self._checked is not None and kinds == self._checked[0]:
                return {s.name: v for s, v in zip(symbols, given, strict=True)}, *self._checked[1:]
        tensors = call.tensors(symbols, given, self._parameters)
        if self._runners is None:
            self._prepare(tensors)
        self._check_shapes(tensors)
        lead = call.leading(symbols, tensors)
        batch = math.prod(lead) if lead else None
        values = {s.name: call.flat(t, len(s.shape), lead, batch) for s, t in zip(symbols, tensors, strict=True)}
        if kinds is not None and all(values[s.name] is t for s, t in zip(symbols, tensors, strict=True)):
            self.__dict__["_checked"] = kinds, lead, batch
        return values, lead, batch

    def _solve(
        self,
        values: Values,
        lead: tuple[int, ...],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
        autocast: torch.dtype | None,
    ) -> tuple[Any, Report | None, Values]:
        assert self._runners is not None
        functions = {
            o.name: bound(o, self._callable(o.name), self.sizes, self._model.source, autocast)
            for o in self._model.opaques
        }
        reports: list[Report] = []
        unknowns: Values = {}
        for block, runner, step in zip(self._model.blocks, self._runners, self._stages.before, strict=True):
            if step is not None:
                values.update(zip(step.results, self._evaluate(step, values, functions), strict=True))
            failure: ConvergenceError | None = None
            try:
                found, report = runner.solve(values, functions, batch, start, want_report)
            except ConvergenceError as error:
                if not isinstance(error.solution, tuple) or len(error.solution) != 2:
                    raise
                failure = error
                found, report = error.solution
            values.update(found)
            if report is not None:
                reports.append(report)
            if want_report or failure is not None:
                for u in block.unknowns:
                    if u.name in found:
                        unknowns[u.name] = call.unflat(found[u.name].detach(), len(u.shape), lead)
            if failure is not None:
                last = block is self._model.blocks[-1]
                value = self._outputs(values, functions, lead) if last else unknowns
                failure.solution = Solution(value, combined(reports).reshaped(lead), unknowns)
                raise failure
        value = self._outputs(values, functions, lead)
        if not want_report:
            return value, None, unknowns
        if not reports:
            reports.append(explicit(next(iter(values.values()), None), batch))
        return value, combined(reports).reshaped(lead), unknowns

    def _evaluate(self, step: Step, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> tuple[Tensor, ...]:
        if step.copies:
            return tuple([values[n] for n in step.inputs])
        found = self._program[step.function](
            *[values[n] for n in step.inputs],
            *[functions[n] for n in step.opaques],
            *[self.sizes[n] for n in step.dims],
        )
        return (found,) if len(step.results) == 1 else found

    def _outputs(self, values: Mapping[str, Tensor], functions: Mapping[str, Bound], lead: tuple[int, ...]) -> Any:
        found = self._evaluate(self._stages.outputs, values, functions)
        shaped = [call.unflat(y, rank, lead) for y, rank in zip(found, self._output_ranks, strict=True)]
        return shaped[0] if self._output_type is None else self._output_type(*shaped)

    def _callable(self, name: str) -> Callable[..., Any]:
        found = self._modules.get(name)
        return found if found is not None else self.__dict__[name]

    # -- what a call checks --------------------------------------------------------------------------------------------

    @torch.compiler.disable()
    def _prepare(self, tensors: Sequence[Tensor]) -> None:
        """The first call: dimensions are found, parameters get their shapes, solvers are made."""
        given = zip(self._model.givens, tensors, strict=True)
        self._infer([Observation(call.declaration(s), s.shape, tuple(t.shape)) for s, t in given])
        self._settle(complete=True)

    def _check_shapes(self, tensors: Sequence[Tensor]) -> None:
        for symbol, core, tensor in zip(self._model.givens, self._cores, tensors, strict=True):
            if tensor.dim() < len(core) or tuple(tensor.shape[tensor.dim() - len(core) :]) != core:
                raise mismatch(Observation(call.declaration(symbol), symbol.shape, tuple(tensor.shape)), self._origins)

    def _start(self, start: Any, lead: tuple[int, ...], batch: int | None) -> Values:
        """Unknowns to begin from, by name and with the flat batch."""
        unknowns = {u.name: u for b in self._model.blocks for u in b.unknowns}
        if isinstance(start, Solution):
            start = start.unknowns
        if isinstance(start, Tensor):
            start = (start,)
        if not isinstance(start, Mapping):
            if len(start) != len(unknowns):
                raise TypeError(f"start: {len(start)} tensors for {len(unknowns)} unknowns ({', '.join(unknowns)})")
            start = dict(zip(unknowns, start, strict=True))
        found: Values = {}
        for name, value in start.items():
            if name not in unknowns:
                raise TypeError(f"start: no unknown `{name}`; there are {', '.join(unknowns)}")
            symbol = unknowns[name]
            core = tuple(d.evaluate(self.sizes) for d in symbol.shape)
            if tuple(value.shape[value.dim() - len(core) :]) != core:
                seen = Observation(call.declaration(symbol), symbol.shape, tuple(value.shape))
                raise mismatch(seen, self._origins)
            found[name] = call.flat(value.detach(), len(core), lead, batch)
        return found

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """All dimensions are known."""
        if self._runners is None:
            assert self._lower is not None
            if torch._C._are_functorch_transforms_active():  # constants made within one would belong to it
                with torch._C._DisableFuncTorch():
                    self._runners = tuple(self._lower(self.sizes))
            else:
                self._runners = tuple(self._lower(self.sizes))
            self._lower = None  # not needed again, and need not pickle

    def _named_tuple(self) -> type[Any] | None:
        names = tuple(o.name for o in self._model.outputs)
        return outputs_type(self._title, names) if len(names) != 1 else None

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made at run time: the outputs' class and what was checked (`Program` drops its functions)."""
        return {**self.__dict__, "_output_type": None, "_checked": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._output_type = self._named_tuple()

    def __repr__(self) -> str:
        if not self._text:
            return super().__repr__()
        sizes = self.extra_repr()
        return self._text.rstrip() + (f"\n# {sizes}" if sizes else "")

    def explain(self, form: str = "text") -> str:
        """The derivation as "text", "markdown" or "latex"."""
        return self._text if self._explain is None else self._explain(form, self.sizes)

    def _repr_markdown_(self) -> str:
        return self.explain("markdown")

    def _repr_latex_(self) -> str | None:
        return None if self._explain is None else self._explain("latex", self.sizes)


@torch.compiler.disable(reason="dropout masks and batch statistics are held during a solve, which is not traced")
def _interpreted(
    layer: Layer, args: Any, kwargs: Any, start: Any, want_report: bool
) -> tuple[Any, Report | None, Values]:
    return layer._run(args, kwargs, start, want_report=want_report)


def _autocast(values: Sequence[Any]) -> str | None:
    """The device type of the inputs if autocast is on there."""
    for v in values:
        if isinstance(v, Tensor):
            kind = v.device.type
            return kind if kind != "meta" and torch.is_autocast_enabled(kind) else None
    return None
