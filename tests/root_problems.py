"""Root problems with known answers, for the tests of `solvers` and `backward`."""

from __future__ import annotations

import torch
from torch import Tensor

from implicitdsl.solvers.problem import RootProblem


def contraction(n: int, rate: float, seed: int = 0) -> Tensor:
    """A random matrix of spectral norm `rate`."""
    w = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return w / torch.linalg.matrix_norm(w, 2) * rate


def inputs(batch: int, n: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matvec(w: Tensor, z: Tensor) -> Tensor:
    """W z for each row; W (n, n) or (B, n, n)."""
    return z @ w.mT if w.ndim == 2 else torch.einsum("bij,bj->bi", w, z)


def outer_like(w: Tensor, u: Tensor, z: Tensor) -> Tensor:
    """Cotangent of W in matvec(W, z)."""
    return u.mT @ z if w.ndim == 2 else u.unsqueeze(2) * z.unsqueeze(1)


def _slope(z: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return 1 - torch.tanh(matvec(w, z) + x).square()


TANH = RootProblem(
    residual=lambda z, x, w: z - torch.tanh(matvec(w, z) + x),
    step=lambda z, x, w: torch.tanh(matvec(w, z) + x),
    jacobian=lambda z, x, w: torch.eye(z.shape[1], dtype=z.dtype) - _slope(z, x, w).unsqueeze(2) * w,
    jvp=lambda z, v, x, w: v - _slope(z, x, w) * matvec(w, v),
    vjp=lambda z, u, x, w: u - matvec(w.mT, _slope(z, x, w) * u),
    vjp_inputs=lambda z, u, x, w: (-(_slope(z, x, w) * u), -outer_like(w, _slope(z, x, w) * u, z)),
    jvp_inputs=lambda z, t, x, w: (
        -_slope(z, x, w)
        * ((t[0] if t[0] is not None else 0.0) + (matvec(t[1], z) if t[1] is not None else torch.zeros_like(z)))
    ),
    ranks=(1, 2),
)
"""z = tanh(W z + x), everything in closed form; a = (x, W)."""

OPAQUE_TANH = RootProblem(step=TANH.step, ranks=(1, 2))
"""The same, known only as a step."""

AFFINE = RootProblem(
    residual=lambda z, x, w: z - matvec(w, z) - x,
    step=lambda z, x, w: matvec(w, z) + x,
    jacobian=lambda z, x, w: torch.eye(z.shape[1], dtype=z.dtype) - w,
    jvp=lambda z, v, x, w: v - matvec(w, v),
    vjp=lambda z, u, x, w: u - matvec(w.mT, u),
    vjp_inputs=lambda z, u, x, w: (-u, -outer_like(w, u, z)),
    ranks=(1, 2),
    affine=True,
)
"""z = W z + x; a = (x, W)."""

COSINE = RootProblem(
    step=lambda z, a: torch.cos(a * z),
    jacobian=lambda z, a: (1 + a * torch.sin(a * z)).unsqueeze(2),
    vjp_inputs=lambda z, u, a: (z * torch.sin(a * z) * u,),
    ranks=(1,),
)
"""z = cos(a z), scalar; repelling at a = 2.5."""

CIRCLE = RootProblem(
    residual=lambda z, a: z * z + a * a - 1,
    jacobian=lambda z, a: (2 * z).unsqueeze(2),
    ranks=(1,),
)
"""z² + a² = 1, scalar; J = 0 at z = 0."""

SQUARE_ROOT = RootProblem(residual=lambda z, a: z * z - a, jacobian=lambda z, a: (2 * z).unsqueeze(2), ranks=(1,))
"""z² = a, scalar; a double root at a = 0."""

SHIFT = RootProblem(step=lambda z, a: z + a, jacobian=lambda z, a: torch.zeros_like(z).unsqueeze(2), ranks=(1,))
"""z = z + a: no root for a ≠ 0."""

EXPONENTIAL = RootProblem(
    step=lambda z, a: a * torch.exp(z), jacobian=lambda z, a: (1 - a * torch.exp(z)).unsqueeze(2), ranks=(1,)
)
"""z = a exp(z): no real root for a > 1/e."""


def unrolled_tanh(x: Tensor, w: Tensor, steps: int = 400) -> Tensor:
    """The fixed point of `TANH` by iteration under autograd."""
    z = torch.zeros_like(x)
    for _ in range(steps):
        z = torch.tanh(matvec(w, z) + x)
    return z
