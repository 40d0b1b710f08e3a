"""Bound functions inside a solve: their parameters become explicit inputs, and what they draw is held.

A solve evaluates a function many times and differentiates it at the solution only, so everything that it depends on has
to be an input: its parameters, else their gradients would be lost, and its noise (see `noise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from implicitdsl.lowering.bound import Bound

from .noise import Holding, Layout, counters_kept, layout, powers

Function = Callable[..., Any]
Evaluate = Callable[..., Tensor]
"""(z, a, functions) -> the residual, or the step."""

SETTLE = 4
"""Plain steps before batch statistics are taken: those of the start say little of the solution."""


class UnsteadyError(Exception):
    """A bound function gives other results for the same inputs, in a way that cannot be held. `args[0]` is its name."""


@dataclass(frozen=True)
class Noise:
    """What the functions drew in one call, as inputs of the solve, with their core ranks, and where the batch is."""

    tensors: tuple[Tensor, ...] = ()
    ranks: tuple[int, ...] = ()
    layouts: tuple[Layout, ...] = ()
    modules: tuple[nn.Module, ...] = ()

    def held(self, tensors: Sequence[Tensor], evaluate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`evaluate` under this noise, of which `tensors` are the present rows."""
        if not tensors and not powers(self.modules):
            return evaluate

        def under(*args: Any) -> Tensor:
            whole = [where.whole(x) for where, x in zip(self.layouts, tensors, strict=True)]
            with Holding(self.modules, whole):
                return evaluate(*args)

        return under


class Opaques:
    """The functions that a solve applies, by name, in the order in which generated code takes them."""

    def __init__(self, functions: Mapping[str, Bound]) -> None:
        self.functions = dict(functions)

    def __bool__(self) -> bool:
        return bool(self.functions)

    def modules(self) -> list[nn.Module]:
        """Those of the functions that are modules."""
        return [f.module for f in self.functions.values() if isinstance(f.module, nn.Module)]

    def parameters(self) -> tuple[Tensor, ...]:
        """Every parameter of every module, to be passed to the solve as inputs shared by the batch."""
        return tuple(p for module in self.modules() for p in module.parameters())

    def callables(self, parameters: Sequence[Tensor]) -> list[Function]:
        """The functions with `parameters` in place of their own; as they are where those are their own.

        A parameter with a further leading dimension has a value of its own for each row (under vmap): the module is
        then applied row by row.
        """
        left = list(parameters)
        made: list[Function] = []
        for f in self.functions.values():
            if not isinstance(f.module, nn.Module):
                made.append(f)
                continue
            own = dict(f.module.named_parameters())
            given = {name: left.pop(0) for name in own}
            if all(given[name] is own[name] for name in own):
                made.append(f)
            elif all(given[name].dim() == own[name].dim() for name in own):
                made.append(replace(f, module=_Functional(f.module, given)))
            else:
                dims = {name: 0 if given[name].dim() > own[name].dim() else None for name in own}
                made.append(replace(f, module=_RowWise(f.module, given, dims)))
        return made

    def key(self) -> int:
        """Changes when the functions, or how they are set to draw, may have."""
        state: list[Any] = []
        for f in self.functions.values():
            state.append(id(f.module))
            if isinstance(f.module, nn.Module):
                for part in f.module.modules():
                    rates = [getattr(part, name, None) for name in ("p", "dropout")]
                    state.append((part.training, *(r for r in rates if isinstance(r, float))))
        return hash(tuple(state))

    def layouts(self, residual: Evaluate, z: Tensor, a: Sequence[Tensor], ranks: Sequence[int]) -> tuple[Layout, ...]:
        """Where the batch is in each thing that `residual(z, a, functions)` draws; nothing is left changed.

        Raises UnsteadyError for a function that draws what cannot be held. Cost: four evaluations on two or four rows
        of other numbers than z and a, which may belong to a transform.
        """
        modules, functions = self.modules(), tuple(self.functions.values())
        devices = [z.device] if z.is_cuda else []
        two, four = ([_stand_in(x, rank, n) for x, rank in ((z, 1), *zip(a, ranks, strict=True))] for n in (2, 4))
        with torch.no_grad(), torch.random.fork_rng(devices=devices), counters_kept(modules):
            with Holding(modules, None, live=True) as single:
                residual(two[0], two[1:], functions)
            with Holding(modules, None, live=True) as double:
                residual(four[0], four[1:], functions)
            trails: list[list[tuple[str, Tensor]]] = [[], []]
            for trail in trails:
                watched = [replace(f, module=_Watched(name, f.module, trail)) for name, f in self.functions.items()]
                with Holding(modules, single.found):
                    residual(two[0], two[1:], watched)
        for (name, first), (_, second) in zip(*trails, strict=True):
            if not is_functorch_wrapped_tensor(first) and not _alike(first, second):
                raise UnsteadyError(name)
        return tuple(layout(x, y, 2) for x, y in zip(single.found, double.found, strict=True))

    def noise(
        self, residual: Evaluate, step: Evaluate | None, z: Tensor, a: Sequence[Tensor], layouts: Sequence[Layout]
    ) -> Noise:
        """What the functions draw in this call; running statistics move on once. Layouts are those of `layouts`.

        Batch statistics are those at the iterate after a few steps with statistics of their own, and count as functions
        of inputs and parameters at that iterate.
        """
        modules, functions = tuple(self.modules()), tuple(self.functions.values())
        if not layouts and not powers(modules):
            return Noise()
        statistics = any(where.statistic for where in layouts)
        held: list[Tensor] | None = None
        if statistics and step is not None:
            with torch.no_grad(), counters_kept(modules):
                with Holding(modules, None, live=True) as drawn:
                    residual(z, a, functions)
                held = drawn.found
                for _ in range(SETTLE):
                    with Holding(modules, held, live=True):
                        z = step(z, a, functions)
        with nullcontext() if statistics else torch.no_grad(), Holding(modules, held, live=True, update=True) as last:
            residual(z, a, functions)
        tensors = tuple(where.rows(x, z.shape[0]) for where, x in zip(layouts, last.found, strict=True))
        ranks = tuple(x.dim() - (where.dim is not None) for where, x in zip(layouts, tensors, strict=True))
        return Noise(tensors, ranks, tuple(layouts), modules)

    def lost(self, evaluate: Callable[..., Any]) -> list[str]:
        """Functions whose result depends on trained tensors that are not parameters of theirs: those gradients would be
        lost. Cost: one evaluation of `evaluate(*functions)`; random generators and buffers are left as they were.
        """
        return self._found(_Probe, evaluate)

    def detached(self, evaluate: Callable[..., Any]) -> list[str]:
        """Functions whose result changes with their arguments but carries no derivative by any of them: `detach`,
        comparisons. Not to be called under a transform. Cost: one evaluation of `evaluate(*functions)` with its VJP,
        and of such a function two more.
        """
        return self._found(_Detached, evaluate)

    def _found(self, probe: Callable[[str, Function, list[str]], Function], evaluate: Callable[..., Any]) -> list[str]:
        found: list[str] = []
        probes = [replace(f, module=probe(name, f.module, found)) for name, f in self.functions.items()]
        with torch.random.fork_rng(devices=[]), torch.no_grad(), counters_kept(self.modules()):
            evaluate(*probes)
        return list(dict.fromkeys(found))


def _stand_in(x: Tensor, rank: int, rows: int) -> Tensor:
    """Numbers in (0, 1) in place of x, for `rows` samples where x has any."""
    shape = (*(rows,) * (x.dim() - rank), *x.shape[x.dim() - rank :])
    return torch.linspace(0.1, 0.9, math.prod(shape), dtype=x.dtype, device=x.device).reshape(shape)


def _alike(first: Tensor, second: Tensor) -> bool:
    """Equal but for what kernels that add in any order may differ by."""
    scale = float(first.abs().nan_to_num(nan=0.0, posinf=0.0).mean()) if first.numel() else 0.0
    return torch.allclose(first, second, rtol=1e-2, atol=1e-2 * scale, equal_nan=True)


class _Functional:
    """A module with other parameters."""

    def __init__(self, module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        self.module, self.parameters = module, dict(parameters)

    def __call__(self, *args: Tensor) -> Any:
        return torch.func.functional_call(self.module, self.parameters, args)


class _RowWise:
    """A module with parameters that differ from row to row."""

    def __init__(self, module: nn.Module, parameters: Mapping[str, Tensor], dims: Mapping[str, int | None]) -> None:
        self.module, self.parameters, self.dims = module, dict(parameters), dict(dims)

    def __call__(self, *args: Tensor) -> Any:
        def row(parameters: dict[str, Tensor], *args: Tensor) -> Any:
            out = torch.func.functional_call(self.module, parameters, tuple(x.unsqueeze(0) for x in args))
            return tuple(y.squeeze(0) for y in out) if isinstance(out, tuple | list) else out.squeeze(0)

        return torch.func.vmap(row, (self.dims, *(0 for _ in args)))(self.parameters, *args)


class _Probe:
    """Applies a function to constants; a result that still requires a gradient depends on something hidden."""

    def __init__(self, name: str, function: Function, found: list[str]) -> None:
        self.name, self.function, self.found = name, function, found

    def __call__(self, *args: Tensor) -> Any:
        call: Function = self.function
        if isinstance(call, nn.Module):
            constants = {name: p.detach() for name, p in call.named_parameters()}
            constants |= {name: b.detach().clone() for name, b in call.named_buffers()}
            call = _Functional(call, constants)
        with torch.enable_grad():
            out = call(*(x.detach() for x in args))
        results = out if isinstance(out, tuple | list) else (out,)
        if any(isinstance(y, Tensor) and y.requires_grad for y in results):
            self.found.append(self.name)
        return tuple(y.detach() for y in out) if isinstance(out, tuple | list) else out.detach()


class _Detached:
    """Applies a function to arguments that require gradients, and to others if its result requires none."""

    def __init__(self, name: str, function: Function, found: list[str]) -> None:
        self.name, self.function, self.found = name, function, found

    def __call__(self, *args: Tensor) -> Any:
        call: Function = self.function
        if isinstance(call, nn.Module):
            call = _Functional(call, {name: b.detach().clone() for name, b in call.named_buffers()})
        with torch.enable_grad():
            given = [x.detach().requires_grad_() for x in args]
            out = call(*given)
            results = out if isinstance(out, tuple | list) else (out,)
            live = [y.sum() for y in results if y.requires_grad]
            cut = not live or all(g is None for g in torch.autograd.grad(live, given, allow_unused=True))
        if cut:
            before, after = (call(*(x + step * (1 + x.abs()) for x in args)) for step in (0.0, 0.25))
            first, second = ((y if isinstance(y, tuple | list) else (y,)) for y in (before, after))
            if not all(_alike(x, y) for x, y in zip(first, second, strict=True)):
                self.found.append(self.name)
        return tuple(y.detach() for y in out) if isinstance(out, tuple | list) else out.detach()


class _Watched:
    """Keeps the results of every call."""

    def __init__(self, name: str, function: Function, trail: list[tuple[str, Tensor]]) -> None:
        self.name, self.function, self.trail = name, function, trail

    def __call__(self, *args: Tensor) -> Any:
        out = self.function(*args)
        self.trail += [(self.name, y.detach()) for y in (out if isinstance(out, tuple | list) else (out,))]
        return out
