"""Projection of symmetric matrices on the semidefinite ones, and its smoothing, with derivatives of every order."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def project(W: Tensor, mu: float) -> Tensor:
    """½ (W + (W² + 4 μ I)^½), (…, k, k): the S ⪰ 0 with S (S − W) = μ I; the projection if μ = 0. One `eigh`."""
    return (_ProjectReverse if torch.compiler.is_compiling() else _Project).apply(W, mu)


def slope(W: Tensor, E: Tensor, mu: float) -> Tensor:
    """The derivative of `project` at W (…, k, k) in the directions E (…, d, k, k). O(d k³).

    It can be differentiated, if μ = 0 where no eigenvalue is zero.
    """
    return (_SlopeReverse if torch.compiler.is_compiling() else _Slope).apply(W, E, mu)


def eigen(W: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors; NaN for matrices that are not finite."""
    finite = W.isfinite().all(-1).all(-1, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(finite.unsqueeze(-1), W, 0.0))
    return torch.where(finite, values, torch.nan), vectors


def _sizes(values: Tensor, mu: float) -> Tensor:
    return (values.square() + 4 * mu).sqrt() if mu else values.abs()


class _ProjectReverse(torch.autograd.Function):
    """Without the rules for forward mode and vmap, which Dynamo refuses to trace."""

    @staticmethod
    def forward(W: Tensor, mu: float) -> Tensor:
        values, V = eigen(W)
        return (V * (0.5 * (values + _sizes(values, mu))).unsqueeze(-2)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.mu = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (W,) = ctx.saved_tensors
        return slope(W, 0.5 * (g + g.mT).unsqueeze(-3), ctx.mu).squeeze(-3), None


class _Project(_ProjectReverse):
    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: None) -> Tensor:
        (W,) = ctx.saved_tensors
        return slope(W, t.unsqueeze(-3), ctx.mu).squeeze(-3)


class _SlopeReverse(torch.autograd.Function):
    """V (weight ∘ (Vᵀ E V)) Vᵀ, weight_ij the divided difference of ½ (v + √(v² + 4 μ)) at two eigenvalues."""

    @staticmethod
    def forward(W: Tensor, E: Tensor, mu: float) -> Tensor:
        values, V = eigen(W)
        sizes = _sizes(values, mu)
        total = sizes.unsqueeze(-1) + sizes.unsqueeze(-2)
        flat = total <= 1e-14 * sizes.amax(-1)[..., None, None].clamp(min=1e-300)
        ratio = (values.unsqueeze(-1) + values.unsqueeze(-2)) / torch.where(flat, 1.0, total)
        weight = 0.5 * (1 + torch.where(flat, -1.0, ratio)).unsqueeze(-3)
        V = V.unsqueeze(-3)
        return V @ (weight * (V.mT @ E @ V)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.mu = inputs[2]
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        W, E = ctx.saved_tensors
        pull = torch.func.vjp(lambda W, E: _slope(W, E, ctx.mu), W, E)[1]
        return *pull(g), None


class _Slope(_SlopeReverse):
    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, w: Tensor | None, e: Tensor | None, _: None) -> Tensor:
        W, E = ctx.saved_tensors
        w, e = (torch.zeros_like(x) if t is None else t for t, x in ((w, W), (e, E)))
        return torch.func.jvp(lambda W, E: _slope(W, E, ctx.mu), (W, E), (w, e))[1]


def _slope(W: Tensor, E: Tensor, mu: float) -> Tensor:
    """The same, of twice the cost, by what can be differentiated again: with B = 2 Π(W) − W the derivative of B in
    the direction E is the X with B X + X B = W E + E W, as B² = W² + 4 μ I."""
    W = W.unsqueeze(-3)
    X = _Lyapunov.apply((2 * project(W, mu) - W).squeeze(-3), W @ E + E @ W)
    return 0.5 * (E + X)


class _Lyapunov(torch.autograd.Function):
    """X with A X + X A = M, for A (…, k, k) symmetric and definite and M (…, d, k, k). O(d k³)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, M: Tensor) -> Tensor:
        values, V = torch.linalg.eigh(A)
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        flat = total <= 1e-14 * values.amax(-1)[..., None, None]
        weight = torch.where(flat, 0.0, 1 / torch.where(flat, 1.0, total)).unsqueeze(-3)
        V = V.unsqueeze(-3)
        return V @ (weight * (V.mT @ M @ V)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        A, X = ctx.saved_tensors
        u = _Lyapunov.apply(A, g)
        return -(u @ X.mT + X.mT @ u).sum(-3), u

    @staticmethod
    def jvp(ctx: Any, a: Tensor, m: Tensor) -> Tensor:
        A, X = ctx.saved_tensors
        a = a.unsqueeze(-3)
        return _Lyapunov.apply(A, m - a @ X - X @ a)
