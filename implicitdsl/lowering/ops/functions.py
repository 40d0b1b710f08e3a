"""The torch spellings of functions that are not elementwise. `rank` is the core rank of the first argument."""

from __future__ import annotations

import torch
from torch import Tensor

from implicitdsl.solvers.factor import each, inverse


def _core(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def mean(x: Tensor, rank: int) -> Tensor:
    """Mean of all elements, (…, *core) → (…)."""
    return x.mean(_core(rank)) if rank else x


def prod(x: Tensor, rank: int) -> Tensor:
    """Product of all elements, (…, *core) → (…)."""
    return x.flatten(-rank).prod(-1) if rank else x


def prod_others(x: Tensor, rank: int) -> Tensor:
    """Π_{j ≠ i} xⱼ for every i: the gradient of `prod`, right at zeros too. Cost O(n), two cumulative products."""
    if not rank:
        return torch.ones_like(x)
    flat = x.flatten(-rank)
    one = torch.ones_like(flat[..., :1])
    before = torch.cat([one, flat[..., :-1]], -1).cumprod(-1)
    after = torch.cat([flat[..., 1:], one], -1).flip(-1).cumprod(-1).flip(-1)
    return (before * after).reshape(x.shape)


def prod_pairs(x: Tensor) -> Tensor:
    """Π_{k ≠ i,j} xₖ for i ≠ j, 0 on the diagonal, (…, n) → (…, n, n): the derivative of `prod_others`. O(n³)."""
    n = x.shape[-1]
    eye = torch.eye(n, dtype=torch.bool, device=x.device)
    without_i = torch.where(eye, x.new_ones(()), x.unsqueeze(-2))
    return torch.where(eye, x.new_zeros(()), prod_others(without_i, 1))


def norm(x: Tensor, rank: int) -> Tensor:
    """Euclidean (Frobenius) norm. The derivative at zero is zero."""
    return torch.linalg.vector_norm(x, dim=_core(rank)) if rank else x.abs()


def norm_1(x: Tensor, rank: int) -> Tensor:
    """Σ |xᵢ|."""
    return x.abs().sum(_core(rank)) if rank else x.abs()


def norm_inf(x: Tensor, rank: int) -> Tensor:
    """max |xᵢ|."""
    return x.abs().amax(_core(rank)) if rank else x.abs()


def max_all(x: Tensor, rank: int) -> Tensor:
    """Largest element; ties share the derivative."""
    return x.amax(_core(rank)) if rank else x


def min_all(x: Tensor, rank: int) -> Tensor:
    """Smallest element; ties share the derivative."""
    return x.amin(_core(rank)) if rank else x


def argmax_weights(x: Tensor, rank: int) -> Tensor:
    """1 / k at the k largest of all elements, else 0: the derivative of `max_all`."""
    if not rank:
        return torch.ones_like(x)
    hits = (x == x.amax(_core(rank), keepdim=True)).to(x.dtype)
    return hits / hits.sum(_core(rank), keepdim=True)


def _tensors(*values: Tensor | float) -> list[Tensor]:
    """Numbers as tensors like the first tensor; so that ties have the derivatives of the tensor functions."""
    like = next(v for v in values if isinstance(v, Tensor))
    return [v if isinstance(v, Tensor) else like.new_full((), v) for v in values]


def maximum(x: Tensor | float, y: Tensor | float) -> Tensor:
    """Elementwise, either argument may be a number. A tie shares the derivative half and half."""
    x, y = _tensors(x, y)
    return torch.maximum(x, y)


def minimum(x: Tensor | float, y: Tensor | float) -> Tensor:
    """Elementwise, either argument may be a number. A tie shares the derivative half and half."""
    x, y = _tensors(x, y)
    return torch.minimum(x, y)


def clamp(x: Tensor | float, lo: Tensor | float, hi: Tensor | float) -> Tensor:
    """min(max(x, lo), hi) elementwise, any argument may be a number. The derivative by x is 1 on the bounds too."""
    if isinstance(x, Tensor) and not isinstance(lo, Tensor) and not isinstance(hi, Tensor):
        return x.clamp(lo, hi)
    x, lo, hi = _tensors(x, lo, hi)
    return x.clamp(lo, hi)


def scale_rows(d: Tensor, A: Tensor) -> Tensor:
    """diag(d) A, (…, n), (…, n, m) → (…, n, m)."""
    return d.unsqueeze(-1) * A


def scale_columns(A: Tensor, d: Tensor) -> Tensor:
    """A diag(d), (…, n, m), (…, m) → (…, n, m)."""
    return A * d.unsqueeze(-2)


def logsumexp(x: Tensor, rank: int) -> Tensor:
    """log Σ exp xᵢ, without overflow."""
    return torch.logsumexp(x, _core(rank)) if rank else x


def softmax(x: Tensor, rank: int) -> Tensor:
    """exp(x) / Σ exp(x) over all elements."""
    if not rank:
        return torch.ones_like(x)
    return torch.softmax(x.flatten(-rank), -1).reshape(x.shape)


def det(A: Tensor) -> Tensor:
    """Determinant, (…, n, n) → (…). O(n³)."""
    return each(torch.linalg.det, A)


def logdet(A: Tensor) -> Tensor:
    """log det A for det A > 0, else NaN (-inf at 0), (…, n, n) → (…). O(n³)."""
    return each(torch.logdet, A)


def inv(A: Tensor) -> Tensor:
    """Inverse, (…, n, n), inf or NaN where singular. O(n³). Not a solve: torch's solves are wrong under vmap of forward
    derivatives."""
    return inverse(A)
