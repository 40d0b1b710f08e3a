"""The KKT system of a strictly convex program by its dual: equalities eliminated once, then S on the active rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .quadratic import Quadratic, times, times_transposed

DISTINCT = 1e-6
"""The least pivot of a Cholesky factor, relative to the largest, of a matrix that counts as definite."""
GATHERED = 24
"""From so many rows on, the active ones are gathered instead of masked."""
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

    def columns(self, B: Tensor) -> Tensor:
        """L⁻¹ B for a matrix."""
        return B / self.L.unsqueeze(-1) if self.L.ndim == 1 else torch.linalg.solve_triangular(self.L, B, upper=False)


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

    def reduced(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(half, t, r) of P u + Cᵀ v = f, C u = g: v of the inequalities has S v = r on the active rows."""
        k = self.problem.equalities
        t = g[..., :k]
        if self.rho is not None:
            f = f + self.rho * times_transposed(self.problem.C[..., :k, :], t)
        half, r = self.root.lower(f), g[..., k:]
        some = r.shape[-1] > 0
        if some:
            r = times_transposed(self.Z, half) - r
        if self.E is not None and self.V is not None:
            t = _triangular(self.E, t, upper=False)
            r = r + times_transposed(self.V, t) if some else r
        return half, t, r

    def expanded(self, half: Tensor, t: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) of all rows from v of the inequalities."""
        x = half - times(self.Y, v) if v.shape[-1] else half
        if self.E is None or self.W is None:
            return self.root.upper(x), v
        along = times(self.W, x) - t
        return self.root.upper(x - times_transposed(self.W, along)), torch.cat(
            [_triangular(self.E.mT, along, upper=True), v], -1
        )


class Active(NamedTuple):
    """Cholesky factor of S on the active rows; the gathered rows (None: all, masked); 1 where one of them counts."""

    F: Tensor
    members: Tensor | None
    on: Tensor

    def solve(self, r: Tensor) -> Tensor:
        """S⁻¹ r on the active rows, zero elsewhere."""
        if self.members is None:
            return torch.cholesky_solve((r * self.on).unsqueeze(-1), self.F).squeeze(-1) * self.on
        y = torch.cholesky_solve((r.gather(1, self.members) * self.on).unsqueeze(-1), self.F).squeeze(-1) * self.on
        return torch.zeros_like(r).scatter_(1, self.members, y)


class Kept(NamedTuple):
    """The factors at the solution, as the backward pass takes them; `active` None: no inequalities. See `Reduced`."""

    dual: Dual
    active: Active | None
    singular: Tensor

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) with P u + Cᵀ v = f and C u = g on the active rows, v = 0 elsewhere."""
        half, t, r = self.dual.reduced(f, g)
        return self.dual.expanded(half, t, r if self.active is None else self.active.solve(r))

    def missing(self, u: Tensor, v: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Zero: what is kept is regular."""
        return torch.zeros_like(u[:, 0])


def dual_of(problem: Quadratic) -> Dual | None:
    """The dual's matrices; None where H or the equalities are not safely regular. Cost n³/3 + n²m + n m² a matrix."""
    assert problem.P is not None
    k, C = problem.equalities, problem.C
    A, G = C[..., :k, :], C[..., k:, :]
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
    Y = root.columns(G.mT) if some else G.mT
    if not k:
        return Dual(problem, root, rho, Y, Y.mT @ Y, Y, None, None, None)
    X = root.columns(A.mT)
    E = _cholesky(X.mT @ X)
    if E is None:
        return None
    W = torch.linalg.solve_triangular(E, X.mT, upper=False)
    if not some:
        return Dual(problem, root, rho, Y, Y.mT[..., :0], Y, E, W, W[..., :0])
    V = W @ Y
    Z = Y - W.mT @ V
    return Dual(problem, root, rho, Y, Z.mT @ Z, Z, E, W, V)


def factor(S: Tensor, active: Tensor) -> Active:
    """Cholesky factors of S (m, m) or (B, m, m) on the rows where `active` (B, m) is true. Cost k³/3 a sample."""
    m = active.shape[-1]
    if m < GATHERED:
        on = active.to(S.dtype)
        K = S * (on.unsqueeze(-1) * on.unsqueeze(-2))
        K.diagonal(dim1=-2, dim2=-1).add_(1 - on)
        return Active(_regular(K), None, on)
    count = max(1, int(active.sum(-1).max()))
    members = torch.argsort(active.to(torch.int8), dim=-1, descending=True, stable=True)[:, :count]
    on = active.gather(1, members).to(S.dtype)
    flat = (members.unsqueeze(-1) * m + members.unsqueeze(-2)).flatten(-2)
    if S.ndim == 2:
        K = S.reshape(m * m)[flat].unflatten(-1, (count, count))
    else:
        K = S.reshape(S.shape[0], m * m).gather(1, flat).unflatten(-1, (count, count))
    if bool((on == 0).any()):
        K = K * (on.unsqueeze(-1) * on.unsqueeze(-2))
        K.diagonal(dim1=-2, dim2=-1).add_(1 - on)
    return Active(_regular(K), members, on)


def _regular(K: Tensor) -> Tensor:
    """Cholesky factors; a set of dependent rows, as there may be on the way, is made regular."""
    F, info = torch.linalg.cholesky_ex(K)
    lost = info > 0
    if not bool(lost.any()):
        return F
    shift = torch.where(lost.unsqueeze(-1), 1e-9 * K.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True), 0.0)
    return torch.linalg.cholesky_ex(K + torch.diag_embed(shift.expand(K.shape[:-1])))[0]


def _root(P: Tensor) -> Root | None:
    if P.ndim == 2 and P.shape[-1] >= DIAGONAL:
        d = P.diagonal()
        if bool((P.count_nonzero() <= d.count_nonzero()) & (d > DISTINCT**2 * d.amax()).all()):
            return Root(d.sqrt())
    L = _cholesky(P)
    return None if L is None else Root(L)


def _cholesky(M: Tensor) -> Tensor | None:
    """The factor of a safely definite matrix, or of a batch of them."""
    L, info = torch.linalg.cholesky_ex(M)
    pivots = L.diagonal(dim1=-2, dim2=-1)
    good = (info == 0) & (pivots.amin(-1) > DISTINCT * pivots.amax(-1))
    return L if bool(good.all()) else None


def _triangular(L: Tensor, b: Tensor, upper: bool) -> Tensor:
    if L.ndim == 2:
        return torch.linalg.solve_triangular(L, b.mT, upper=upper).mT
    return torch.linalg.solve_triangular(L, b.unsqueeze(-1), upper=upper).squeeze(-1)
