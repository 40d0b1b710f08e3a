"""Randomness and batch statistics inside bound functions: drawn once a solve, then held while it iterates.

A solve evaluates a function many times and on changing rows of the batch, so whatever it draws must be an input, or the
equation would change at every step and a sample would depend on which others still iterate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.overrides import TorchFunctionMode

_DROPOUTS = {F.dropout: 0, F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}
"""Trailing dimensions that share one draw."""


def _opened(function: Any) -> Callable[..., Any]:
    """A composite of torch whose parts the mode sees: the same code with its own test for modes off."""
    scope = {**function.__globals__, "has_torch_function": lambda *_: False}
    made = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_COMPOSITES = {F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)}


class Holding(TorchFunctionMode):
    """Dropout masks and batch statistics are taken from `held` in order, or made where `held` is None, and listed in
    `found`: a mask is boolean, statistics are a mean and a variance (C,). `live`: statistics are made all the same.
    `update`: running statistics and power iterations move on; else they stand still.
    """

    def __init__(
        self, modules: Sequence[nn.Module], held: Sequence[Tensor] | None, *, live: bool = False, update: bool = False
    ) -> None:
        super().__init__()
        self.left = None if held is None else iter(held)
        self.found: list[Tensor] = []
        self.live, self.update = live or held is None, update
        self.counters = [] if live or update else [b for m in modules for b in m.buffers() if not b.is_floating_point()]
        self.powers = powers(modules)

    def __enter__(self) -> Holding:
        for power in self.powers:
            power.training = self.update
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for power in self.powers:
            power.training = True

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            x, p, training = _dropout(*args, **kwargs)
            return self.dropped(x, p, x.shape[: x.dim() - _DROPOUTS[func]]) if training and p else x
        if func is F.scaled_dot_product_attention and _attention_dropout(*args, **kwargs):
            return _attention(self.dropped, *args, **kwargs)
        if func is F.batch_norm:
            x, running_mean, running_var, weight, bias, training, momentum, eps = _batch_norm(*args, **kwargs)
            if training:
                mean, var = self.statistics(x)
                if self.update and running_mean is not None:
                    _move(running_mean, running_var, mean, var, x.numel() // x.shape[1], momentum)
                return _normalised(x, mean, var, weight, bias, eps)
        if func is F.instance_norm and not self.update:
            return _instance_norm(*args, **kwargs)
        if func is Tensor.add_ and any(args[0] is c for c in self.counters):
            return args[0]
        if func in _COMPOSITES:
            with self:
                return _COMPOSITES[func](*args, **kwargs)
        return func(*args, **kwargs)

    def dropped(self, x: Tensor, p: float, shape: Sequence[int]) -> Tensor:
        """x / (1 - p) under a mask of the leading dimensions `shape`, constant over the others."""
        if self.left is None:
            full = (*shape, *(1,) * (x.dim() - len(shape)))
            mask = torch.empty(full, dtype=x.dtype, device=x.device).bernoulli_(1 - p).bool()
        else:
            mask = next(self.left)
        self.found.append(mask)
        return torch.where(mask, x / (1 - p), 0.0) if p < 1 else torch.zeros_like(x)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, differentiable where they are made."""
        mean, var = (None, None) if self.left is None else (next(self.left), next(self.left))
        if self.live or mean is None or var is None:
            var, mean = torch.var_mean(x, dim=[k for k in range(x.dim()) if k != 1], correction=0)
        self.found += [mean, var]
        return mean, var


def powers(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Spectral normalisations, which move their singular vectors at every evaluation in training mode."""
    return [m for module in modules for m in module.modules() if isinstance(m, _SpectralNorm) and m.training]


@contextmanager
def counters_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Counters of batches are at the end what they were."""
    counters = [b for m in modules for b in m.buffers() if not b.is_floating_point()]
    before = [c.clone() for c in counters]
    try:
        yield
    finally:
        for counter, value in zip(counters, before, strict=True):
            counter.copy_(value)


@dataclass(frozen=True)
class Layout:
    """Where the batch is in something drawn: along `dim`, `factor` entries a sample (heads); None where it is not.

    `statistic`: a batch statistic and no mask.
    """

    dim: int | None
    factor: int = 1
    statistic: bool = False

    def rows(self, x: Tensor, batch: int) -> Tensor:
        """Sample by sample: (B, factor, …), or as it is where the batch shares it."""
        return x if self.dim is None else x.movedim(self.dim, 0).unflatten(0, (batch, self.factor))

    def whole(self, x: Tensor) -> Tensor:
        """The inverse."""
        return x if self.dim is None else x.flatten(0, 1).movedim(0, self.dim)


def layout(single: Tensor, double: Tensor, batch: int) -> Layout:
    """From the same thing drawn for a batch and for one of twice the size."""
    for dim, (one, two) in enumerate(zip(single.shape, double.shape, strict=True)):
        if one != two:
            return Layout(dim, one // batch)
    return Layout(None, statistic=single.is_floating_point())


def _normalised(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """As F.batch_norm with given statistics, which here may be differentiated."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    y = (x - mean.reshape(shape)) * torch.rsqrt(var + eps).reshape(shape)
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _move(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, count: int, momentum: float) -> None:
    """Running statistics towards those of a batch, the variance as its unbiased estimate."""
    with torch.no_grad():
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((var.detach() * (count / max(count - 1, 1))).to(running_var.dtype), momentum)


def _attention(
    drop: Callable[[Tensor, float, Sequence[int]], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q Kᵀ / √d + mask) V with the dropout of its weights written out (the fused kernels draw inside)."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return drop(scores.softmax(-1), dropout_p, scores.shape) @ value


def _attention_dropout(query: Tensor, key: Tensor, value: Tensor, *args: Any, dropout_p: float = 0.0, **_: Any) -> bool:
    return bool(args[1] if len(args) > 1 else dropout_p)


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


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch's, whose running statistics stand still."""
    if use_input_stats:
        running_mean = running_var = None
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
