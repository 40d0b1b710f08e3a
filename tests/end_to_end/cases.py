"""Equilibrium specs, each with a reference that shares no code with the compiler: unrolling or a closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """`inputs` are per-sample shapes; `reference(layer, *inputs)` reads the parameters and returns the output."""

    name: str
    text: str
    inputs: tuple[tuple[int, ...], ...]
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    sizes: dict[str, int] = field(default_factory=dict)
    functions: Callable[[], dict[str, nn.Module | Callable[..., Tensor]]] = dict
    layer: str | None = None
    inside: Callable[[Sequence[Tensor]], list[Tensor]] = list  # moves random inputs to where a solution exists


def fixed_point(step: Callable[[Tensor], Tensor], z: Tensor, steps: int = 300) -> Tensor:
    """The limit of z ← step(z), with every step on the tape."""
    for _ in range(steps):
        z = step(z)
    return z


def mv(A: Tensor, x: Tensor) -> Tensor:
    """A x for a batch of vectors."""
    return x @ A.T


def newton(residual: Callable[[Tensor], Tensor], z: Tensor, steps: int = 40) -> Tensor:
    """Elementwise Newton with every step on the tape."""
    for _ in range(steps):
        _, slope = torch.func.jvp(residual, (z,), (torch.ones_like(z),))
        z = z - residual(z) / slope
    return z


def tanh(layer: nn.Module, x: Tensor) -> Tensor:
    return fixed_point(lambda z: torch.tanh(mv(layer.W, z) + x), torch.zeros_like(x))


def deq(layer: nn.Module, x: Tensor) -> Tensor:
    a = mv(layer.U, x) + layer.b
    return fixed_point(lambda z: torch.tanh(mv(layer.W, z) + a), torch.zeros_like(a))


def affine(layer: nn.Module, x: Tensor) -> Tensor:
    inverse = torch.linalg.inv(torch.eye(layer.W.shape[0], dtype=x.dtype) - layer.W)
    return mv(inverse, mv(layer.U, x) + layer.b)


def affine_by_sample(layer: nn.Module, A: Tensor, x: Tensor) -> Tensor:
    inverse = torch.linalg.inv(torch.eye(3, dtype=x.dtype) * 3 + A)
    return (inverse @ x.unsqueeze(-1)).squeeze(-1)


def sylvester(layer: nn.Module, C: Tensor) -> Tensor:
    return fixed_point(lambda Z: layer.A @ Z @ layer.B + C, torch.zeros_like(C))


def matrix(layer: nn.Module, X: Tensor) -> Tensor:
    return fixed_point(lambda Z: torch.tanh(layer.A @ Z @ layer.B + X), torch.zeros_like(X))


def system(layer: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    u, v = torch.zeros_like(x), torch.zeros_like(y)
    for _ in range(300):
        u, v = torch.tanh(mv(layer.A, v) + x), torch.sigmoid(mv(layer.B, u) + y)
    return u, v


def mixed(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s, v, M = x.new_zeros(x.shape[:-1]), torch.zeros_like(x), x.new_zeros(*x.shape, 2)
    for _ in range(300):
        s, v, M = (
            0.3 * torch.sin(s) + 0.1 * v.sum(-1) + 0.1 * M.sum((-1, -2)),
            torch.tanh(0.5 * mv(layer.A, v) + s[..., None] * x + 0.1 * M[..., 0]),
            torch.tanh(0.3 * (layer.A @ M) + 0.1 * v[..., None] * layer.c),
        )
    return s, v, M


def circle(layer: nn.Module, a: Tensor) -> Tensor:
    return torch.sqrt(1 - a**2)


def cube(layer: nn.Module, x: Tensor) -> Tensor:
    return newton(lambda z: z**3 + z - x, torch.zeros_like(x))


def repelling(layer: nn.Module, a: Tensor) -> Tensor:
    return newton(lambda z: z - torch.cos(2.5 * a * z), torch.full_like(a, 0.5))


def energy(layer: nn.Module, x: Tensor) -> Tensor:
    return fixed_point(lambda z: -mv(layer.W.T, torch.softmax(mv(layer.W, z), -1)) + x, torch.zeros_like(x))


def bound_module(layer: nn.Module, x: Tensor) -> Tensor:
    return fixed_point(lambda z: layer.f(z, x), torch.zeros_like(x))


def explicit(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.tanh(mv(layer.W, x) + layer.b)


def triangular(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    u = fixed_point(lambda u: torch.tanh(mv(layer.A, u) + x), torch.zeros_like(x))
    return u, fixed_point(lambda v: torch.tanh(mv(layer.B, v) + mv(layer.B, u)), torch.zeros_like(x))


def indexed(layer: nn.Module, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(300):
        z = torch.stack((0.5 * torch.cos(z[..., 1]) + x[..., 0], 0.5 * torch.sin(z[..., 0]) + x[..., 1]), dim=-1)
    return z


class Cell(nn.Module):
    """A small contraction with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.outer = nn.Linear(3, 3)
        with torch.no_grad():
            self.inner.weight.mul_(0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(z) + self.outer(x))


def kepler(layer: nn.Module, M: Tensor, e: Tensor) -> Tensor:
    return newton(lambda E: E - e * torch.sin(E) - M, M)


def lyapunov(layer: nn.Module, Q: Tensor) -> Tensor:
    return fixed_point(lambda P: layer.A @ P @ layer.A.T + Q, torch.zeros_like(Q))


def stacked(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    u = fixed_point(lambda u: torch.tanh(mv(layer.A, u) + x), torch.zeros_like(x))
    return u, fixed_point(lambda v: torch.tanh(mv(layer.B, v) + u), torch.zeros_like(x))


def sublayer(layer: nn.Module, x: Tensor) -> Tensor:
    return mv(layer.C, tanh(layer.inner, mv(layer.U, x)))


def least_squares(layer: nn.Module, y: Tensor) -> Tensor:
    """A line through five points, by the normal equations."""
    t = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=y.dtype)
    A = torch.stack((torch.ones_like(t), t), dim=1)
    return mv(torch.linalg.inv(A.T @ A) @ A.T, y)


def square_root(layer: nn.Module, A: Tensor) -> Tensor:
    """Newton's iteration for the principal square root (Denman & Beavers)."""
    X = A @ A.mT + torch.eye(2, dtype=A.dtype)
    Y, Z = X, torch.eye(2, dtype=A.dtype).expand_as(X)
    for _ in range(12):
        Y, Z = (Y + torch.linalg.inv(Z)) / 2, (Z + torch.linalg.inv(Y)) / 2
    return Y


def curvature(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    z = newton(lambda z: 2 * z + torch.tanh(z) - x, torch.zeros_like(x))
    return z, torch.diag_embed(3 - torch.tanh(z) ** 2)


def _unit(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [0.9 * torch.tanh(x) for x in inputs]


def _small(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [1 + 0.1 * torch.tanh(x) for x in inputs]


CASES = (
    Case("tanh", "find z such that z = tanh(W z + x)", ((3,),), tanh),
    Case(
        "deq",
        """
layer Deq(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
        b in R^n = zeros
  find z in R^n such that z = tanh(W z + U x + b)
  using anderson(depth=5, tol=1e-12), backward gmres(tol=1e-12)
  return z
""",
        ((2,),),
        deq,
        {"n": 3, "m": 2},
    ),
    Case(
        "affine",
        """
layer Affine(n, m):
  given x in R^m
  param W in R^(n, n)
        U in R^(n, m)
        b in R^n
  find z in R^n such that z = W z + U x + b
""",
        ((2,),),
        affine,
        {"n": 3, "m": 2},
    ),
    Case(
        "affine by sample",
        """
layer Solve():
  given A in R^(3, 3), x in R^3
  find z in R^3 such that 3 z + A z = x
""",
        ((3, 3), (3,)),
        affine_by_sample,
        inside=lambda i: [torch.tanh(i[0]), i[1]],
    ),
    Case(
        "sylvester",
        """
layer Sylvester(n, m):
  given C in R^(n, m)
  param A in SpectralBall(n, 0.7)
        B in SpectralBall(m, 0.9)
  find Z in R^(n, m) such that Z = A Z B + C
""",
        ((3, 2),),
        sylvester,
        {"n": 3, "m": 2},
    ),
    Case(
        "sylvester by Schur forms",
        """
layer BySchur(n, m):
  given C in R^(n, m)
  param A in SpectralBall(n, 0.7)
        B in SpectralBall(m, 0.9)
  find Z in R^(n, m) such that Z = A Z B + C
  using schur
""",
        ((3, 2),),
        sylvester,
        {"n": 3, "m": 2},
    ),
    Case(
        "matrix",
        """
layer Graph(n, m):
  given X in R^(n, m)
  param A in SpectralBall(n, 0.7)
        B in SpectralBall(m, 0.9)
  find Z in R^(n, m) such that Z = tanh(A Z B + X)
""",
        ((3, 2),),
        matrix,
        {"n": 3, "m": 2},
    ),
    Case(
        "system",
        """
layer System(n, m):
  given x in R^n, y in R^m
  param A in R^(n, m)
        B in R^(m, n)
  find u in R^n, v in R^m such that
    u = tanh(A v + x)
    v = sigmoid(B u + y)
""",
        ((3,), (2,)),
        system,
        {"n": 3, "m": 2},
    ),
    Case(
        "mixed",
        """
layer Mixed():
  given x in R^3
  param A in SpectralBall(3, 0.9)
        c in R^2 = normal(0, 1)
  find s in R, v in R^3, M in R^(3, 2) such that
    s = 0.3 sin(s) + 0.1 sum(v) + 0.1 sum(M)
    v = tanh(0.5 A v + s x + 0.1 M[:, 0])
    M = tanh(0.3 A M + 0.1 reshape(v, 3, 1) reshape(c, 1, 2))
""",
        ((3,),),
        mixed,
    ),
    Case(
        "circle",
        """
layer Circle():
  given a in R
  find z in nonneg such that a^2 + z^2 = 1
""",
        ((),),
        circle,
        inside=_unit,
    ),
    Case(
        "cube",
        """
layer Cube(n):
  given x in R^n
  find z in R^n such that z^3 + z = x
""",
        ((4,),),
        cube,
        {"n": 4},
    ),
    Case(
        "repelling",
        """
layer Repelling():
  given a in R
  find z in R such that z = cos(2.5 a z)
""",
        ((),),
        repelling,
        inside=_small,
    ),
    Case(
        "energy",
        """
layer Energy(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  where E(z) = 1/2 ||z||^2 + logsumexp(W z) - x^T z
  find z in R^n such that grad(E(z), z) = 0
""",
        ((3,),),
        energy,
        {"n": 3},
    ),
    Case(
        "module",
        """
layer Cell():
  given x in R^3
  fn f: (R^3, R^3) -> R^3
  find z in R^3 such that z = f(z, x)
""",
        ((3,),),
        bound_module,
        functions=lambda: {"f": Cell().double()},
    ),
    Case(
        "explicit",
        """
layer Explicit(n):
  given x in R^n
  param W in R^(n, n)
        b in R^n
  find z in R^n such that z = tanh(W x + b)
""",
        ((3,),),
        explicit,
        {"n": 3},
    ),
    Case(
        "triangular",
        """
layer Triangular(n):
  given x in R^n
  param A in SpectralBall(n, 0.8)
        B in SpectralBall(n, 0.8)
  find u in R^n, v in R^n such that u = tanh(A u + x), v = tanh(B v + B u)
""",
        ((3,),),
        triangular,
        {"n": 3},
    ),
    Case(
        "indexed",
        """
layer Indexed():
  given x in R^2
  find z in R^2 such that
    z[0] = 0.5 cos(z[1]) + x[0]
    z[1] = 0.5 sin(z[0]) + x[1]
""",
        ((2,),),
        indexed,
    ),
    Case(
        "kepler",
        """
layer Kepler():
  given M in R, e in R
  find E in R such that M = E - e sin(E)
""",
        ((), ()),
        kepler,
        inside=lambda i: [i[0], 0.7 * torch.sigmoid(i[1])],
    ),
    Case(
        "lyapunov",
        """
layer Lyapunov(n):
  given Q in R^(n, n)
  param A in SpectralBall(n, 0.8)
  find P in R^(n, n) such that P = A P A^T + Q
""",
        ((2, 2),),
        lyapunov,
        {"n": 2},
    ),
    Case(
        "two blocks",
        """
layer Stacked(n):
  given x in R^n
  param A in SpectralBall(n, 0.8)
        B in SpectralBall(n, 0.8)
  find u in R^n such that u = tanh(A u + x)
  find v in R^n such that v = tanh(B v + u)
  return u, v
""",
        ((3,),),
        stacked,
        {"n": 3},
    ),
    Case(
        "sublayer",
        """
layer Inner(n):
  given x in R^n
  param W in SpectralBall(n, 0.8)
  find z in R^n such that z = tanh(W z + x)

layer Outer(n, m):
  given x in R^m
  param U in R^(n, m)
        C in R^(m, n)
  let inner = Inner(n)
  return C inner(U x)
""",
        ((2,),),
        sublayer,
        {"n": 3, "m": 2},
        layer="Outer",
    ),
    Case(
        "least squares",
        """
layer Line():
  given y in R^5
  find c in R^2 such that
    c[0] = y[0]
    c[0] + c[1] = y[1]
    c[0] + 2 c[1] = y[2]
    c[0] + 3 c[1] = y[3]
    c[0] + 4 c[1] = y[4]
  using levenberg_marquardt
""",
        ((5,),),
        least_squares,
    ),
    Case(
        "square root",
        """
layer Root(n):
  given A in R^(n, n)
  find X in PD(n) such that X X = A A^T + I(n)
""",
        ((2, 2),),
        square_root,
        {"n": 2},
    ),
    Case(
        "curvature",
        """
layer Curvature(n):
  given x in R^n
  where E(z) = ||z||^2 + sum(log(exp(z) + exp(-z))) - x^T z
  find z in R^n such that grad(E(z), z) = 0
  return z, H = hess(E(z), z)
""",
        ((3,),),
        curvature,
        {"n": 3},
    ),
)
