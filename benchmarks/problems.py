"""The workloads' numbers: weights of a given norm, inputs, cells, and float64 references of the gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

STILL = 1e-14
"""Iterates of a reference stand still when a step moves them by less than this part of their norm."""


def weights(n: int, norm: float, *, symmetric: bool = False) -> Tensor:
    """A Gaussian matrix with ‖W‖₂ = norm."""
    torch.manual_seed(n)
    W = torch.randn(n, n)
    W = W + W.T if symmetric else W
    return W * (norm / torch.linalg.matrix_norm(W, 2))


def inputs(batch: int, *shape: int, scale: float = 0.3) -> Tensor:
    """Gaussian inputs."""
    torch.manual_seed(batch + sum(shape))
    return scale * torch.randn(batch, *shape)


def exact(step: Callable[[Tensor], Tensor], z: Tensor, trained: Tensor) -> tuple[Tensor, float]:
    """The gradient of Σ z* in `trained` (which `step` reads) by Newton's method and a dense adjoint, in float64.

    z (B, n) is the start; also the largest condition number of I - ∂step/∂z over the last four samples.
    """

    def slopes(z: Tensor) -> Tensor:
        each = torch.autograd.functional.jacobian(lambda z: step(z).sum(0), z)
        return torch.eye(z.shape[1], dtype=z.dtype) - each.transpose(0, 1)

    with torch.no_grad():
        for _ in range(200):
            z = step(z)
    for _ in range(8):
        if (z - step(z)).abs().max() < 1e-14:
            break
        z = z - torch.linalg.solve(slopes(z), (z - step(z)).detach())
    J = slopes(z)
    u = torch.linalg.solve(J.mT, torch.ones_like(z))
    (gradient,) = torch.autograd.grad(step(z), trained, u)
    return gradient, float(torch.linalg.cond(J[-4:]).max())


def unrolled(cell: nn.Module, z: Tensor, x: Tensor, name: str, steps: int = 1000) -> tuple[Tensor, float]:
    """The same for a module cell(z, x) by at most `steps` iterations forward and for the adjoint.

    The condition number is bounded by (1 + ‖J‖₂) / (1 - ‖J‖₂), ‖J‖₂ by the power method on the first sample; infinite
    where ‖J‖₂ ≥ 1.
    """
    cell, z, x = copy.deepcopy(cell).double(), z.double(), x.double()
    with torch.no_grad():
        for _ in range(steps):
            z, before = cell(z, x), z
            if (z - before).norm() <= STILL * z.norm():
                break
    z.requires_grad_()
    y = cell(z, x)
    g = u = torch.ones_like(y)
    for _ in range(steps):
        u, before = g + torch.autograd.grad(y, z, u, retain_graph=True)[0], u
        if (u - before).norm() <= STILL * u.norm():
            break
    (gradient,) = torch.autograd.grad(y, cell.get_parameter(name), u)
    point, given = z[:1].detach(), x[:1]
    point.requires_grad_()
    bar = torch.zeros_like(point).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has first derivatives only
        value = cell(point, given)
        (pulled,) = torch.autograd.grad(value, point, bar, create_graph=True)  # linear in bar: its transpose is the JVP
    v = torch.randn_like(point)
    size = 0.0
    for _ in range(30):
        (pushed,) = torch.autograd.grad(pulled, bar, v / v.norm(), retain_graph=True)
        (v,) = torch.autograd.grad(value, point, pushed, retain_graph=True)
        size = float(v.norm()) ** 0.5
    return gradient, (1 + size) / (1 - size) if size < 1 else float("inf")


class Conv(nn.Module):
    """z ← tanh(conv(z) + x), 3 × 3, with ‖conv‖₂ = norm."""

    def __init__(self, channels: int, side: int, norm: float = 0.9) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            v = torch.randn(1, channels, side, side)
            size = 1.0
            for _ in range(60):
                u = F.conv2d(v, self.conv.weight, padding=1)
                v = F.conv_transpose2d(u, self.conv.weight, padding=1)
                size = float(v.norm()) ** 0.5
                v = v / v.norm()
            self.conv.weight.mul_(norm / size)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(z) + x)


class Transformer(nn.Module):
    """A pre-norm block with causal attention and a feed-forward net, both damped by `gain`, and the input added."""

    def __init__(self, width: int, heads: int = 4, gain: float = 0.35) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.heads, self.gain = heads, gain
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        batch, length, width = z.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = self.mix(self.before(z)).view(shape).permute(2, 0, 3, 1, 4)
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        y = x + self.gain * self.out(heard)
        return y + self.gain * self.down(F.gelu(self.up(self.between(y + self.gain * z))))
