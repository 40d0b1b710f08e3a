"""Bound functions inside a solve: their parameters become explicit inputs, their randomness and statistics are frozen.

A solve evaluates a function many times, on changing rows of the batch, and differentiates it at the solution only. So
everything it depends on has to be an input: parameters (else their gradients would be lost), dropout masks (else the
equation would change at every step) and batch statistics (else a sample would depend on which others still iterate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from implicitdsl.lowering.bound import Bound

Function = Callable[..., Any]

_DROPOUTS = {F.dropout: 0, F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}
"""Trailing dimensions that share one draw."""


@dataclass
class Noise:
    """What one evaluation drew, in order: masks (B, …) and pairs of batch mean and variance (C,)."""

    tensors: list[Tensor] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def add(self, tensor: Tensor, rank: int) -> None:
        self.tensors.append(tensor)
        self.ranks.append(rank)


class _Recording(TorchFunctionMode):
    """Draws masks and computes batch statistics (differentiably), and keeps them. Running statistics are updated."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.noise = noise

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            x, p, training = _dropout(*args, **kwargs)
            if not training or p == 0.0:
                return x
            shape = x.shape[: x.dim() - _DROPOUTS[func]] + (1,) * _DROPOUTS[func]
            mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - p).div_(max(1 - p, 1e-12))
            self.noise.add(mask, x.dim() - 1)
            return x * mask
        if func is F.batch_norm:
            x, running_mean, running_var, weight, bias, training, momentum, eps = _batch_norm(*args, **kwargs)
            if training:
                axes = [k for k in range(x.dim()) if k != 1]
                var, mean = torch.var_mean(x, dim=axes, correction=0)
                self.noise.add(mean, 1)
                self.noise.add(var, 1)
                if running_mean is not None:
                    count = x.numel() // x.shape[1]
                    with torch.no_grad():
                        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
                        unbiased = var.detach() * (count / max(count - 1, 1))
                        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
                return _normalised(x, mean, var, weight, bias, eps)
        return func(*args, **kwargs)


class _Replaying(TorchFunctionMode):
    """Gives back what was drawn, in the same order; counters of batches stand still."""

    def __init__(self, tensors: Sequence[Tensor], counters: Sequence[Tensor]) -> None:
        super().__init__()
        self.left = list(tensors)
        self.counters = counters

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            x, p, training = _dropout(*args, **kwargs)
            return x * self.left.pop(0) if training and p else x
        if func is F.batch_norm:
            x, _, _, weight, bias, training, _, eps = _batch_norm(*args, **kwargs)
            if training:
                return _normalised(x, self.left.pop(0), self.left.pop(0), weight, bias, eps)
        if func is Tensor.add_ and any(args[0] is c for c in self.counters):
            return args[0]
        return func(*args, **kwargs)


def _normalised(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """As F.batch_norm with given statistics, which here may be differentiated."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    y = (x - mean.reshape(shape)) * torch.rsqrt(var + eps).reshape(shape)
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> tuple[Tensor, float, bool]:
    return input, p, training


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, ...]:
    return input, running_mean, running_var, weight, bias, training, momentum, eps


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

    def record(self, evaluate: Callable[..., Any]) -> Noise:
        """The noise of one evaluation of `evaluate(*functions)`, which updates running statistics."""
        noise = Noise()
        with _Recording(noise):
            evaluate(*self.functions.values())
        return noise

    def replayed(self, tensors: Sequence[Tensor], evaluate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`evaluate` under the noise that was recorded."""
        if not tensors:
            return evaluate
        counters = [b for module in self.modules() for b in module.buffers() if not b.is_floating_point()]

        def frozen(*args: Any) -> Tensor:
            with _Replaying(tensors, counters):
                return evaluate(*args)

        return frozen

    def lost(self, evaluate: Callable[..., Any]) -> list[str]:
        """Functions whose result depends on trained tensors that are not parameters of theirs: those gradients would be
        lost. Cost: one evaluation of `evaluate(*functions)`; random generators and buffers are left as they were.
        """
        found: list[str] = []
        probes = [replace(f, module=_Probe(name, f.module, found)) for name, f in self.functions.items()]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            evaluate(*probes)
        return list(dict.fromkeys(found))


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
