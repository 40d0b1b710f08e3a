"""What every set of a `param` offers: a map from raw tensors onto the set, a preimage, a membership test, a start."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

NUDGE = 1e-4
"""How far, in raw units, a value on the boundary of a closed set starts from the raw point whose derivative is zero.

A smooth map that reaches a boundary at a finite raw point is flat there, so an initial value exactly on the boundary
would never move. The value is off by NUDGE² / 2 = 5e-9 (times the set's scale), below `torch.allclose`'s tolerance.
"""

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Parametrization(ABC):
    """A set S as the image of a smooth map `value` from raw tensors, which an optimiser moves freely.

    Stateless, hashable and picklable. `shape` is a value's whole shape; all maps accept further leading (batch)
    dimensions. One element has the last `rank` dimensions of `shape`; those before them are powers, as in `[a, b]^n`.
    Under autocast the maps run in the raw tensor's own dtype; half precisions of a vector or matrix set are computed in
    float32 and rounded once. Raises ValueError where no such set exists.
    """

    shape: tuple[int, ...]

    rank: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if len(self.shape) < self.rank:
            raise ValueError(f"{self}: its elements have rank {self.rank}")
        reason = self._empty()
        if reason is not None:
            raise ValueError(f"{self}: {reason}")

    def _empty(self) -> str | None:
        """Why this shape and these arguments make no set, if so."""
        return None

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the raw parameter."""
        return self.shape

    @final
    def value(self, raw: Tensor) -> Tensor:
        """The element of the set at `raw` (..., *raw_shape) → (..., *shape); differentiable to any order.

        Raises ValueError for another shape.
        """
        _expect(raw, self.raw_shape, f"the raw tensor of {self}")
        kind = raw.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._widened(raw)
        return self._widened(raw)

    def _widened(self, raw: Tensor) -> Tensor:
        if self.rank and raw.dtype in _HALF:
            return self._value(raw.float()).to(raw.dtype)
        return self._value(raw)

    @final
    def raw(self, value: Tensor) -> Tensor:
        """A raw tensor with `value(raw) = value`; a value on a closed set's boundary starts inside by `NUDGE`.

        What rounding left outside is first moved onto the set; whether `value` belongs there at all is the question of
        `contains`. Computed in float64, not differentiable. Raises ValueError for another shape.
        """
        _expect(value, self.shape, f"an element of {self}")
        with torch.no_grad():
            return self._raw(_precise(value), value.dtype).to(value.dtype)

    @final
    def contains(self, value: Tensor, tol: float | None = None) -> Tensor:
        """Whether `value` (..., *shape) lies in the set, as bool (...); NaN and infinity never do.

        `tol` is relative to the set's scale; None means rounding in the value's dtype. Excluded boundaries are never
        in. Raises ValueError for another shape.
        """
        _expect(value, self.shape, f"an element of {self}")
        with torch.no_grad():
            finite = torch.isfinite(value)
            rounding = 8 * torch.finfo(value.dtype).eps * math.sqrt(max(self.shape[-1] if self.rank else 1, 1))
            inside = self._contains(torch.where(finite, value, 0), rounding if tol is None else tol)
            powers = inside.dim() - (value.dim() - len(self.shape))
            inside = _all(inside, powers)
            return inside & _all(finite, len(self.shape))

    @final
    def default(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """The raw tensor of the default initial value, in the interior; draws from torch's global generator."""
        with torch.no_grad():
            return self.raw(self._default(dtype or torch.get_default_dtype(), torch.device(device or "cpu")))

    @abstractmethod
    def _value(self, raw: Tensor) -> Tensor: ...

    @abstractmethod
    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """As `raw`; `value` is in high precision, the result will be rounded to `dtype`."""

    @abstractmethod
    def _contains(self, value: Tensor, tol: float) -> Tensor:
        """Membership of each element: the last `rank` dimensions are reduced."""

    @abstractmethod
    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The default initial value (not raw)."""


def linear_bound(shape: tuple[int, ...]) -> float:
    """torch.nn.Linear draws its weight (out, in) uniformly from ± 1/sqrt(in)."""
    return 1.0 / math.sqrt(max(shape[-1], 1))


def linear_default(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix (or stack of matrices) as torch.nn.Linear draws its weight; zeros for a vector or a scalar."""
    if len(shape) < 2:
        return torch.zeros(shape, dtype=dtype, device=device)
    bound = linear_bound(shape)
    return torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound)


def symmetric(matrix: Tensor) -> Tensor:
    """(X + Xᵀ) / 2, exactly symmetric in floating point."""
    return (matrix + matrix.mT) / 2


def largest(matrix: Tensor) -> Tensor:
    """max |X| over the last two dimensions."""
    return matrix.abs().amax((-2, -1))


def rescaled(raw: Tensor, *, zero: Tensor | float) -> Tensor:
    """x / max|x| (..., n) for a map that does not depend on the length of x: no overflow, and right derivatives, since
    any constant factor would do. The zero vector, where such a map is not defined, becomes `zero`, with derivatives.
    """
    scale = raw.detach().abs().amax(-1, keepdim=True)
    vanishes = scale == 0
    return raw / torch.where(vanishes, 1, scale) + vanishes.to(raw.dtype) * zero


def _precise(value: Tensor) -> Tensor:
    return value.float() if value.device.type == "mps" else value.double()  # mps has no float64


def _all(mask: Tensor, count: int) -> Tensor:
    return mask.flatten(mask.dim() - count).all(-1) if count else mask


def _expect(tensor: Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(tensor.shape[tensor.dim() - len(shape) :]) != shape or tensor.dim() < len(shape):
        raise ValueError(f"{what} has shape {shape}, not {tuple(tensor.shape)}")
