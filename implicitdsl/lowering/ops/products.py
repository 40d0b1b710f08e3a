"""Products of vectors and matrices; one GEMM where the matrix is shared by the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from implicitdsl.solvers.carries import SLIM, TURNED


def _turned(A: Tensor) -> Tensor:
    """Aᵀ for a GEMM of a compiled graph, where copies of one matrix are made once."""
    return A.mT.contiguous() if A.numel() <= TURNED else A.mT


def _times(A: Tensor, x: Tensor) -> Tensor:
    """A x in a compiled graph; few rows are sums of the kernel that makes x, which a GEMM would wait for."""
    if A.shape[0] <= SLIM:
        return (x.unsqueeze(1) * A).sum(-1)
    return x @ _turned(A)


def _compiled(A: Tensor, x: Tensor) -> bool:
    """Whether A x is a GEMM of a graph for the CPU."""
    return torch.compiler.is_compiling() and A.dim() == 2 and x.dim() == 2 and x.device.type == "cpu"


def _each(A: Tensor, x: Tensor) -> bool:
    """Whether each sample has a matrix of its own."""
    return A.dim() == 3 and x.dim() == 2 and A.shape[0] == x.shape[0] and not torch.compiler.is_compiling()


def matvec(A: Tensor, x: Tensor) -> Tensor:
    """A x. Shapes (…, n, m), (…, m) → (…, n). A shared A is one GEMM over the whole batch."""
    if _compiled(A, x):
        return _times(A, x)
    if A.dim() == 2:
        return functional.linear(x, A)
    if _each(A, x):  # as a row: with columns it takes twice the time, and `matmul` five operators more
        return torch.bmm(x.unsqueeze(-2), A.mT).squeeze(-2)
    return (A @ x.unsqueeze(-1)).squeeze(-1)


def vecmat(x: Tensor, A: Tensor) -> Tensor:
    """Aᵀ x. Shapes (…, n), (…, n, m) → (…, m)."""
    if A.dim() == 2:
        return _times(A.mT, x) if A.shape[1] <= SLIM and _compiled(A, x) else x @ A
    if _each(A, x):
        return torch.bmm(x.unsqueeze(-2), A).squeeze(-2)
    return (x.unsqueeze(-2) @ A).squeeze(-2)


def affine(A: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """A x + h. Shapes (…, n, m), (…, m), (…, n) → (…, n). One fused kernel where A is shared."""
    if _compiled(A, x) and h.dim() <= 2:
        # a difference: the compiler makes an addmm of a sum, which writes h into the result before it multiplies
        return _times(A, x) - (-h)
    if A.dim() == 2 and h.dim() <= x.dim():
        if x.dim() == 2:
            return torch.addmm(h, x, A.mT)
        if x.dim() == 1:
            return torch.addmv(h, A, x)
    return matvec(A, x) + h


def affine_by(A: Tensor, h: Tensor) -> Callable[[Tensor], Tensor]:
    """x ↦ A x + h, as `affine`: what does not depend on x is transposed and looked at once."""
    if A.dim() != 2 or h.dim() > 2:
        return lambda x: affine(A, x, h)
    if torch.compiler.is_compiling():
        if A.shape[0] <= SLIM:
            return lambda x: affine(A, x, h)
        turned, opposite = _turned(A), -h
        return lambda x: x @ turned - opposite if _compiled(A, x) else affine(A, x, h)
    transposed = A.mT

    def apply(x: Tensor) -> Tensor:
        return torch.addmm(h, x, transposed) if x.dim() == 2 else affine(A, x, h)

    return apply


def vecaffine(x: Tensor, A: Tensor, h: Tensor) -> Tensor:
    """Aᵀ x + h. Shapes (…, n), (…, n, m), (…, m) → (…, m). One fused kernel where A is shared."""
    if A.dim() == 2 and x.dim() == 2 and h.dim() <= 2:
        return torch.addmm(h, x, A)
    return vecmat(x, A) + h


def dot(x: Tensor, y: Tensor) -> Tensor:
    """xᵀ y. Shapes (…, n), (…, n) → (…)."""
    return (x * y).sum(-1)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """x yᵀ. Shapes (…, n), (…, m) → (…, n, m)."""
    return x.unsqueeze(-1) * y.unsqueeze(-2)


def less_square(u: Tensor, a: Tensor) -> Tensor:
    """u (1 − a²), elementwise: the cotangent of x for u, that of a = tanh x. One kernel if none broadcasts."""
    return torch.ops.aten.tanh_backward(u, a) if u.shape == a.shape else u * (1 - a**2)


def trace(A: Tensor) -> Tensor:
    """Sum of the diagonal. Shape (…, n, n) → (…)."""
    return A.diagonal(dim1=-2, dim2=-1).sum(-1)


def sum_like(g: Tensor, like: Tensor) -> Tensor:
    """A per-sample cotangent brought to the shape of its input: summed over leading dimensions that the input lacks."""
    if g.shape == like.shape:
        return g
    if g.dim() >= like.dim():
        extra = g.dim() - like.dim()
        if g.shape[extra:] == like.shape:
            return g.sum(tuple(range(extra)))
    shape = torch.broadcast_shapes(g.shape, like.shape)
    return g.expand(shape).sum_to_size(like.shape)


def outer_like(u: Tensor, v: Tensor, like: Tensor) -> Tensor:
    """`sum_like(outer(u, v), like)`; when `like` is shared one GEMM uᵀ v over the batch, without the outer products."""
    if like.dim() == 2:
        if u.dim() == 2 and v.dim() == 2 and u.shape[0] == v.shape[0]:
            return u.mT @ v
        if u.dim() > 1 and v.dim() > 1:
            lead = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
            u = u.expand(*lead, u.shape[-1]).reshape(-1, u.shape[-1])
            v = v.expand(*lead, v.shape[-1]).reshape(-1, v.shape[-1])
            return u.mT @ v
        if u.dim() > 1:
            u = u.sum(tuple(range(u.dim() - 1)))
        if v.dim() > 1:
            v = v.sum(tuple(range(v.dim() - 1)))
    return sum_like(outer(u, v), like)


def matmul_like(A: Tensor, B: Tensor, like: Tensor) -> Tensor:
    """`sum_like(A @ B, like)`: Σ over the batch of A B as one GEMM when `like` is shared."""
    if like.dim() == 2 and A.dim() == 3 and B.dim() == 3 and A.shape[0] == B.shape[0]:
        return A.transpose(0, 1).flatten(1) @ B.flatten(0, 1)
    return sum_like(A @ B, like)
