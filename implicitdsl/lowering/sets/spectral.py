"""Matrices of bounded spectral norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .base import NUDGE, Parametrization, linear_default
from .cache import keepable, memo


@final
@dataclass(frozen=True)
class SpectralBall(Parametrization):
    """‖W‖₂ ≤ c: W = X M (2M - I) with M = (I + XᵀX / 16c²)⁻¹.

    Every singular value s of X becomes c sin(4 arctan(s / 4c)): the identity to second order near 0, c at s = 1.66 c,
    and back through 0 beyond. The map is analytic, at repeated singular values too, and no part of it is dead; scaling
    by min(1, c/‖X‖₂) instead pins the norm at c once X has left the ball: its derivative along X vanishes there.
    Inverse: s = 4c tan(arcsin(w/c) / 4).

    With [I; X/4c] = [Q₁; Q₂] R, M = Q₁Q₁ᵀ and X M = 4c Q₂Q₁ᵀ: the bound holds to rounding of an orthonormal factor
    (measured: 4e-7 in float32, n = 512) however large X is, which no Gram matrix gives. One QR of (m + n) × n, kept
    while X stays as it is; the backward is seven products. Default: torch.nn.Linear's matrix, scaled to 0.9 c where it
    is larger (one SVD).
    """

    c: float

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return None if math.isfinite(self.c) and self.c > 0 else "the bound must be finite and positive"

    def _value(self, raw: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # QR's own derivative: custom rules do not trace, and torch.func drops them
            return self._factors(raw)[2]
        w, m, value = memo(raw, self, self._factors)
        if keepable(raw) and not (raw.requires_grad and torch.is_grad_enabled()):
            return value.clone()
        w, m = _Attach.apply(raw, w, m, 16 * self.c * self.c)
        return w @ (2 * m - _eye(raw))

    def _factors(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """X M, M = (I + XᵀX / 16c²)⁻¹, and W."""
        eye = _eye(raw).expand(*raw.shape[:-2], -1, -1)
        q = torch.linalg.qr(torch.cat([eye, raw / (4 * self.c)], -2)).Q
        top, bottom = q.split([raw.shape[-1], raw.shape[-2]], -2)
        w, m = 4 * self.c * (bottom @ top.mT), top @ top.mT
        return w, m, w @ (2 * m - eye)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        u, w, vh = torch.linalg.svd(value, full_matrices=False)
        s = 4 * self.c * torch.tan(torch.asin((w / self.c).clamp(max=1 - NUDGE**2 / 2)) / 4)
        return (u * s[..., None, :]) @ vh

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return torch.linalg.matrix_norm(value, 2) <= self.c * (1 + max(tol, 1e-6))

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        x = linear_default(self.shape, dtype, device)
        norm = torch.linalg.matrix_norm(x, 2, keepdim=True)
        return x * (0.9 * self.c / norm.clamp(min=0.9 * self.c))


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


class _Attach(torch.autograd.Function):
    """Give W = X M and M = (I + XᵀX / k)⁻¹, computed elsewhere, their derivatives.

    With S = dXᵀX + XᵀdX: dM = -M S M / k, dW = dX M + X dM. The pullbacks use the outputs themselves, which are
    attached, so every derivative is differentiable again.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, m: Tensor, k: float) -> tuple[Tensor, Tensor]:
        return w.clone(), m.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.k = inputs[3]
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        grad_w, grad_m = grads
        x, w, m = ctx.saved_tensors
        direct, inner = None, None
        if grad_w is not None:
            direct = grad_w @ m
            inner = w.mT @ direct
        if grad_m is not None:
            through = m @ grad_m @ m
            inner = through if inner is None else inner + through
        if inner is None:
            return None, None, None, None
        bent = x @ (inner + inner.mT) / -ctx.k
        return bent if direct is None else direct + bent, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        dx = tangents[0]
        if dx is None:
            return None, None
        x, _, m = (forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors)  # this level's tangents are ours to set
        with forward_ad._set_fwd_grad_enabled(True):  # torch runs rules with it off: an outer jvp would see constants
            cross = dx.mT @ x
            dm = m @ (cross + cross.mT) @ m / -ctx.k
            return dx @ m + x @ dm, dm

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, tuple[int, int]]:
        moved = [
            t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(args[:3], in_dims[:3], strict=True)
        ]
        return _Attach.apply(*moved, args[3]), (0, 0)
