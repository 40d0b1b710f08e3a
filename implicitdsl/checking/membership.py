"""Whether constant tensors lie in the sets of `param`, in plain numbers: `check` imports no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from implicitdsl.ir.dims import Shape

Matrix = Sequence[Sequence[float]]

_TOL = 1e-6
_SIZES = (1, 2, 3, 5)
MOST = 4096
"""Entries beyond which a constant tensor is left to the test with tensors, when the layer is made."""


def constant_lies_in(name: str, args: Sequence[float], shape: Shape, kind: str, value: float) -> bool:
    """Whether the tensor of equal entries `value`, or the identity (`kind` "eye"), may lie in a set.

    Dimensions without a number are tried at a few sizes: False means that it lies outside at each of them.
    """
    names = {n for d in shape for n in d.names}
    for size in _SIZES if names else (0,):
        axes = [d.evaluate(dict.fromkeys(names, size)) for d in shape]
        total = 1
        for a in axes:
            total *= a
        if total > MOST or min(axes, default=1) < 1:
            return True
        if len(axes) == 1 and vector_lies_in(name, args, [value] * axes[0]):
            return True
        if len(axes) == 2:
            rows, columns = axes
            if kind == "eye":
                matrix = [[float(i == j) for j in range(columns)] for i in range(rows)]
            else:
                matrix = [[value] * columns for _ in range(rows)]
            if matrix_lies_in(name, args, matrix):
                return True
        if len(axes) not in (1, 2):
            return True
    return False


def vector_lies_in(name: str, args: Sequence[float], v: Sequence[float]) -> bool:
    """simplex: v ≥ 0, Σ v = 1; ball: ‖v‖ ≤ r; sphere: ‖v‖ = 1. Other sets say nothing of a vector."""
    norm = sqrt(sum(x * x for x in v))
    match name:
        case "simplex":
            return min(v) >= 0 and abs(sum(v) - 1) <= _TOL
        case "ball":
            return norm <= args[0] * (1 + _TOL)
        case "sphere":
            return abs(norm - 1) <= _TOL
        case _:
            return True


def matrix_lies_in(name: str, args: Sequence[float], a: Matrix) -> bool:
    """The sets of matrices by their definition, to rounding. O(n³)."""
    match name:
        case "Sym":
            return _symmetric(a)
        case "Skew":
            return _symmetric(a, -1)
        case "PSD":
            return _symmetric(a) and _semidefinite(a)
        case "PD":
            return _symmetric(a) and _semidefinite(a, strictly=True)
        case "Orth" | "Stiefel":
            gram = _gram(a)
            return all(abs(gram[i][j] - (i == j)) <= _TOL for i in range(len(gram)) for j in range(len(gram)))
        case "SpectralBall":
            return _semidefinite(_plus_identity(_gram(a), args[0] ** 2 * (1 + _TOL)))
        case "Monotone":
            n = len(a)
            half = [[(a[i][j] + a[j][i]) / 2 for j in range(n)] for i in range(n)]
            return _semidefinite(_plus_identity(half, 1 - args[0]))
        case _:
            return True


def _symmetric(a: Matrix, sign: int = 1) -> bool:
    scale = max(abs(x) for row in a for x in row)
    return all(abs(a[i][j] - sign * a[j][i]) <= _TOL * scale for i in range(len(a)) for j in range(i + 1))


def _gram(a: Matrix) -> list[list[float]]:
    columns = list(zip(*a, strict=True))
    return [[sum(x * y for x, y in zip(u, v, strict=True)) for v in columns] for u in columns]


def _plus_identity(a: Matrix, factor: float) -> list[list[float]]:
    """`factor` I − A."""
    return [[factor * (i == j) - x for j, x in enumerate(row)] for i, row in enumerate(a)]


def _semidefinite(a: Matrix, strictly: bool = False) -> bool:
    """By Cholesky's factorisation of A, a little of the identity added where A may be singular."""
    n = len(a)
    scale = max(abs(x) for row in a for x in row)
    shift, least = (0.0, 1e-12 * scale) if strictly else (_TOL * scale, 0.0)
    low: list[list[float]] = []
    for i in range(n):
        row: list[float] = []
        for j in range(i + 1):
            rest = a[i][j] + shift * (i == j) - sum(row[k] * (low[j][k] if j < i else row[k]) for k in range(j))
            if i == j:
                if rest < least or (rest == 0 and (strictly or any(a[i]))):
                    return False
                row.append(sqrt(rest))
            else:
                row.append(rest / low[j][j] if low[j][j] else 0.0)
        low.append(row)
    return True
