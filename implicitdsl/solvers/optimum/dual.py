"""The KKT system of a strictly convex program by its dual: equalities eliminated once, then S on the active rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..host import array
from .quadratic import Quadratic, plus, times_transposed

DISTINCT = 1e-6
"""The least pivot of a Cholesky factor, relative to the largest, of a matrix that counts as definite."""
GATHERED = 36
"""From so many rows on, the active ones are gathered instead of masked."""
WALL = 0.75
"""The power of the largest number that keeps a row out: far above all entries, and its own root is no problem."""
DIAGONAL = 48
"""From so many unknowns on it is worth looking whether a shared P is diagonal."""


class Root(NamedTuple):
    """L with L Lᵀ = H: a Cholesky factor (n, n) or (B, n, n), or the root (n,) of a diagonal that all share."""

    L: Tensor

    def lower(self, b: Tensor) -> Tensor:
        """L⁻¹ b for b (B, n)."""
        if self.L.ndim == 1:
            return b / self.L
        if self.L.ndim == 2:
            return torch.linalg.solve_triangular(self.L, b.mT, upper=False).mT
        return torch.linalg.solve_triangular(self.L, b.unsqueeze(-1), upper=False).squeeze(-1)

    def upper(self, b: Tensor) -> Tensor:
        """L⁻ᵀ b."""
        if self.L.ndim == 1:
            return b / self.L
        if self.L.ndim == 2:
            return torch.linalg.solve_triangular(self.L.mT, b.mT, upper=True).mT
        return torch.linalg.solve_triangular(self.L.mT, b.unsqueeze(-1), upper=True).squeeze(-1)

    def rows(self, B: Tensor) -> Tensor:
        """B L⁻ᵀ for a matrix."""
        if self.L.ndim == 1:
            return B / self.L
        return torch.linalg.solve_triangular(self.L.mT, B, upper=True, left=False)


class Dual(NamedTuple):
    """Everything of min ½zᵀHz + …, C z = d or ≤ d, that does not depend on the active set or the right-hand side.

    Y = L⁻¹Gᵀ of the inequalities, E Eᵀ = A H⁻¹Aᵀ and W = E⁻¹A L⁻ᵀ (orthonormal rows) of the equalities, V = W Y,
    Z = Y − WᵀV and S = ZᵀZ. H = P + ρ AᵀA, which has the same solutions. All of them shared where P and C are.
    """

    problem: Quadratic
    root: Root
    rho: Tensor | None
    Y: Tensor
    S: Tensor
    Z: Tensor
    E: Tensor | None
    W: Tensor | None
    V: Tensor | None

    def reduced(self, f: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(half, t, r) of P u + Cᵀ v = f, C u = g (None: 0): v of the inequalities has S v = r on the active rows."""
        k = self.problem.equalities
        if g is None and k:
            g = f.new_zeros(f.shape[0], self.problem.C.shape[-2])
        t = f[..., :0] if g is None else g[..., :k]
        if self.rho is not None:
            f = f + self.rho * times_transposed(self.problem.C[..., :k, :], t)
        half = self.root.lower(f)
        some = self.Z.shape[-1] > 0
        if g is None:
            r = times_transposed(self.Z, half)
        else:
            r = plus(g[..., k:], half, self.Z, of_b=-1.0) if some else g[..., k:]
        if self.E is not None and self.V is not None:
            t = _triangular(self.E, t, upper=False)
            r = plus(r, t, self.V) if some else r
        return half, t, r

    def expanded(self, half: Tensor, t: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) of all rows from v of the inequalities."""
        x = plus(half, v, self.Y.mT, of_x=-1.0) if v.shape[-1] else half
        if self.E is None or self.W is None:
            return self.root.upper(x), v
        along = plus(t, x, self.W.mT, of_b=-1.0)
        nu = _triangular(self.E.mT, along, upper=True)
        rest = plus(x, along, self.W, of_x=-1.0)
        return self.root.upper(rest), torch.cat([nu, v], -1) if v.shape[-1] else nu


class Active(NamedTuple):
    """Cholesky factor of S with a wall of `WALL` added to the diagonal of rows that are not active, which is the factor
    of S on the active rows to rounding; the gathered rows (B, k, 1) (None: all), and which of them are active (B, k).
    """

    F: Tensor
    members: Tensor | None
    on: Tensor

    def solve(self, r: Tensor) -> Tensor:
        """S⁻¹ r on the active rows, zero elsewhere."""
        r = r.unsqueeze(-1)
        if self.members is None:
            return torch.where(self.on, self._inside(r).squeeze(-1), 0.0)
        y = torch.where(self.on, self._inside(r.gather(1, self.members)).squeeze(-1), 0.0)
        return torch.zeros_like(r).scatter_(1, self.members, y.unsqueeze(-1)).squeeze(-1)

    def near(self, r: Tensor) -> Tensor:
        """The same of columns r (B, m, 1), with numbers that are as good as zero elsewhere."""
        if self.members is None:
            return self._inside(r)
        return torch.zeros_like(r).scatter_(1, self.members, self._inside(r.gather(1, self.members)))

    def _inside(self, r: Tensor) -> Tensor:
        if self.members is None:  # small: one operator is as fast as two
            return torch.cholesky_solve(r, self.F)
        half = torch.linalg.solve_triangular(self.F, r, upper=False)
        return torch.linalg.solve_triangular(self.F.mT, half, upper=True)


class Kept(NamedTuple):
    """What the backward pass takes from the solution: the factors, and the active rows (None: no inequalities), whose
    own factor may be there already. See `Reduced`.
    """

    dual: Dual
    rows: Tensor | None
    active: Active | None

    def solve(self, f: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
        """(u, v) with P u + Cᵀ v = f and C u = g (None: zero) on the active rows, v = 0 elsewhere."""
        half, t, r = self.dual.reduced(f, g)
        if self.rows is not None:
            r = (self.active or factor(self.dual.S, self.rows)).solve(r)
        return self.dual.expanded(half, t, r)

    def missing(self, u: Tensor, v: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Zero: what is kept is regular."""
        return torch.zeros_like(u[:, 0])


def dual_of(problem: Quadratic) -> Dual | None:
    """The dual's matrices; None where H or the equalities are not safely regular. Cost n³/3 + n²m + n m² a matrix."""
    assert problem.P is not None
    k, C = problem.equalities, problem.C
    A, G = (C[..., :k, :], C[..., k:, :]) if k else (C, C)
    root, rho = _root(problem.P), None
    if root is None and k:
        P = problem.P
        size = A.square().sum((-2, -1)).clamp(min=torch.finfo(A.dtype).tiny)
        rho = P.diagonal(dim1=-2, dim2=-1).abs().sum(-1) / size
        root = _root(P + rho[..., None, None] * (A.mT @ A))
        rho = rho.unsqueeze(-1)
    if root is None:
        return None
    some = G.shape[-2] > 0
    Yt = root.rows(G) if some else G
    if not k:
        S = torch.bmm(Yt, Yt.mT) if Yt.ndim == 3 else Yt @ Yt.mT  # matmul takes seven operators
        return Dual(problem, root, rho, Yt.mT, S, Yt.mT, None, None, None)
    X = root.rows(A)
    E = definite(X @ X.mT)
    if E is None:
        return None
    W = torch.linalg.solve_triangular(E, X, upper=False)
    if not some:
        return Dual(problem, root, rho, Yt.mT, Yt[..., :0], Yt.mT, E, W, W[..., :0])
    V = W @ Yt.mT
    Zt = Yt - V.mT @ W
    return Dual(problem, root, rho, Yt.mT, Zt @ Zt.mT, Zt.mT, E, W, V)


def factor(S: Tensor, active: Tensor) -> Active:
    """Cholesky factors of S (m, m) or (B, m, m) on the rows where `active` (B, m) is true. Cost k³/3 a sample."""
    rows, m = active.shape
    if m < GATHERED:
        K = S.expand(rows, m, m).clone()
        K.diagonal(dim1=-2, dim2=-1).add_(~active, alpha=wall(S.dtype))
        return Active(regular(K), None, active)
    on, members = active.to(torch.int8).sort(dim=-1, descending=True, stable=True)
    count = int(array(active).sum(1).max(initial=1))
    members, on = members[:, :count], on[:, :count] > 0
    flat = (members.unsqueeze(-1) * m + members.unsqueeze(-2)).flatten(-2)
    K = S.reshape(m * m)[flat] if S.ndim == 2 else S.reshape(rows, m * m).gather(1, flat)
    K = K.unflatten(-1, (count, count))
    K.diagonal(dim1=-2, dim2=-1).add_(~on, alpha=wall(S.dtype))
    return Active(regular(K), members.unsqueeze(-1), on)


def wall(dtype: torch.dtype) -> float:
    """What keeps a row out of a system when it is added to its diagonal entry."""
    return torch.finfo(dtype).max ** WALL


def regular(K: Tensor) -> Tensor:
    """Cholesky factors of systems (B, m, m) with walls; a set of dependent rows, as there may be on the way, is made
    regular."""
    F, info = torch.linalg.cholesky_ex(K)
    if not np.count_nonzero(array(info)):
        return F
    diagonal = K.diagonal(dim1=-2, dim2=-1)
    size = torch.where(diagonal < wall(K.dtype), diagonal, 0.0).amax(-1, keepdim=True)
    shift = torch.where((info > 0).unsqueeze(-1), 1e-9 * size, 0.0)
    return torch.linalg.cholesky_ex(K + torch.diag_embed(shift.expand(K.shape[:-1])))[0]


def _root(P: Tensor) -> Root | None:
    if P.ndim == 2 and P.shape[-1] >= DIAGONAL:
        d = P.diagonal()
        if bool((P.count_nonzero() <= d.count_nonzero()) & (d > DISTINCT**2 * d.amax()).all()):
            return Root(d.sqrt())
    L = definite(P)
    return None if L is None else Root(L)


def definite(M: Tensor) -> Tensor | None:
    """The factor of a safely definite matrix, or of a batch of them."""
    L, info = torch.linalg.cholesky_ex(M)
    pivots = array(L.diagonal(dim1=-2, dim2=-1))
    safe = not np.count_nonzero(array(info)) and (pivots > DISTINCT * pivots.max(-1, keepdims=True)).all()
    return L if safe else None


def _triangular(L: Tensor, b: Tensor, upper: bool) -> Tensor:
    if L.ndim == 2:
        return torch.linalg.solve_triangular(L, b.mT, upper=upper).mT
    return torch.linalg.solve_triangular(L, b.unsqueeze(-1), upper=upper).squeeze(-1)
