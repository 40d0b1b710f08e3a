"""(a, inf), (-inf, b), [a, inf] and [-inf, b], elementwise: half-lines from a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Parametrization
from .halfline import Nonneg, Positive
from .interval import inside, snapped


@dataclass(frozen=True)
class Ray(Parametrization):
    """v = a + h, or b - h, with h of `half`; the other of a and b is infinite."""

    a: float
    b: float

    half: ClassVar[type[Parametrization]]

    @property
    def _end(self) -> tuple[float, float]:
        """The finite one of a and b, and the sign of the direction from it."""
        return (self.a, 1.0) if math.isfinite(self.a) else (self.b, -1.0)

    def _empty(self) -> str | None:
        one = math.isfinite(self.a) != math.isfinite(self.b) and self.a < self.b
        return None if one else "one of the bounds must be finite, and a < b"

    def _value(self, raw: Tensor) -> Tensor:
        end, sign = self._end
        return end + sign * self.half(self.shape)._value(raw)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        end, sign = self._end
        return self.half(self.shape)._raw((value - end) * sign, dtype)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        end, sign = self._end
        return (value - end) * sign >= -tol * abs(end)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        end, sign = self._end
        return end + sign * self.half(self.shape)._default(dtype, device)


@final
@dataclass(frozen=True)
class OpenRay(Ray):
    """v > a, or v < b, by `Positive`; kept strictly inside in its dtype."""

    half = Positive

    def _value(self, raw: Tensor) -> Tensor:
        return snapped(super()._value(raw), *inside(self.a, self.b, raw.dtype))

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return super()._raw(value.clamp(*inside(self.a, self.b, dtype)), dtype)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        end, sign = self._end
        return (value - torch.full((), end, dtype=value.dtype, device=value.device)) * sign > 0


@final
@dataclass(frozen=True)
class ClosedRay(Ray):
    """v >= a, or v <= b, by `Nonneg`."""

    half = Nonneg
