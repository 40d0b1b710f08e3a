"""Second-order cone programs with a quadratic objective: a primal-dual interior point with Nesterov–Todd scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .cones import Cones
from .interior_point import Newton
from .quadratic import Quadratic, times, times_transposed

FRACTION = 0.99
"""Of the step to the boundary."""
TINY = 1e-280
SMALL = 2**16
"""Of unknowns × slacks × samples so many cost little more than the calls that handle them."""
REGULAR = 1e-14
"""Of the diagonal."""


class Shape(NamedTuple):
    """Slacks are vectors (B, plain + c d): nonnegative entries, then c second-order cones of length d (shorter ones are
    padded with zeros, which stay zero)."""

    plain: int
    c: int
    d: int

    def second(self, v: Tensor) -> Tensor:
        """(B, c, d), a view."""
        return (v[..., self.plain :] if self.plain else v).unflatten(-1, (self.c, self.d))

    def joined(self, linear: Tensor, second: Tensor) -> Tensor:
        return torch.cat([linear, second.flatten(-2)], -1) if self.plain else second.flatten(-2)


def uniform(cones: Cones, A: Tensor, b: Tensor) -> tuple[Shape, Tensor, Tensor, Tensor | None]:
    """The rows behind those of {0} with all second-order cones of one length, by rows of zeros; and where those that
    were there stand, None if all are."""
    A, b, plain = A[..., cones.zero :, :], b[..., cones.zero :], cones.nonneg
    if len(set(cones.second)) == 1:
        return Shape(plain, len(cones.second), cones.second[0]), A, b, None
    places, there = (t.to(b.device) for t in cones.padded)
    index = torch.cat([torch.arange(plain, device=b.device), plain + places.flatten()])
    mask = torch.cat([there.new_ones(plain), there.flatten()])
    G, h = A[..., index, :] * mask.unsqueeze(-1), b[..., index] * mask
    return Shape(plain, *places.shape), G, h, mask.nonzero().squeeze(-1)


class Point(NamedTuple):
    """x (B, n), multipliers y (B, p) of the equalities and z (B, m) of the cones, slacks s (B, m)."""

    x: Tensor
    y: Tensor
    z: Tensor
    s: Tensor


class Algebra(NamedTuple):
    """Constants of a shape: the signs of J = diag(1, −1, …), their products, and e = (1, 0, …) of every cone."""

    shape: Shape
    J: Tensor
    both: Tensor
    e: Tensor

    @staticmethod
    def of(shape: Shape, like: Tensor) -> Algebra:
        J = -like.new_ones(shape.d)
        J[0] = 1
        e = like.new_zeros(1, shape.plain + shape.c * shape.d)
        e[:, : shape.plain] = 1
        shape.second(e)[..., 0] = 1
        return Algebra(shape, J, J.unsqueeze(-1) * J, e)

    def product(self, u: Tensor, v: Tensor) -> Tensor:
        """u ∘ v: entry by entry; of a cone (uᵀv, u₀ v₁ + v₀ u₁)."""
        p, q, k = self.shape.second(u), self.shape.second(v), self.shape.plain
        crossed = torch.addcmul(p[..., :1] * q, q[..., :1], p)
        crossed[..., 0] = (p * q).sum(-1)
        return self.shape.joined(u[:, :k] * v[:, :k], crossed)


class Scaling(NamedTuple):
    """W with W z = W⁻¹ s = λ: diag(w) of the nonnegative entries, η (2 v vᵀ − J) of each cone (Vandenberghe 2010, §4).

    w (B, plain); W and its inverse (B, c, d, d); `point` λ (B, m); its parts in the cones: size √(λᵀJλ), unit λ/size,
    its reflection J λ/size, and λ₁/(size + λ₀).
    """

    by: Algebra
    w: Tensor
    W: Tensor
    inverse: Tensor
    point: Tensor
    size: Tensor
    unit: Tensor
    reflected: Tensor
    slope: Tensor

    @staticmethod
    def of(by: Algebra, s: Tensor, z: Tensor) -> Scaling:
        """For s and z inside the cones."""
        shape, J = by.shape, by.J
        k = shape.plain
        pair = shape.second(torch.stack([s, z]))
        norms = (pair.square() * J).sum(-1, keepdim=True).clamp(min=TINY).sqrt()
        sq, zq = (pair / norms).unbind()
        v = torch.addcmul(sq, J, zq) / (2 + 2 * (sq * zq).sum(-1, keepdim=True)).sqrt()
        v[..., :1] += 1
        v = v / (2 * v[..., :1]).sqrt()
        eta = (norms[0] / norms[1]).sqrt().unsqueeze(-1)
        W = torch.sub(2 * v.unsqueeze(-1) * v.unsqueeze(-2), torch.diag(J))
        w = (s[:, :k] / z[:, :k]).sqrt() if k else s[:, :0]
        found = Scaling(by, w, W * eta, W * by.both / eta, s, s, s, s, s)
        point = found.apply(z)
        a = shape.second(point)
        size = (a.square() * J).sum(-1, keepdim=True).clamp(min=TINY).sqrt()
        unit = a / size
        return found._replace(
            point=point, size=size, unit=unit, reflected=unit * J, slope=unit[..., 1:] / (unit[..., :1] + 1)
        )

    def apply(self, u: Tensor) -> Tensor:
        """W u."""
        shape = self.by.shape
        second = _blocks_times(self.W, u[:, shape.plain :])
        return torch.cat([self.w * u[:, : shape.plain], second], -1) if shape.plain else second

    def undo(self, u: Tensor) -> Tensor:
        """W⁻¹ u."""
        shape = self.by.shape
        second = _blocks_times(self.inverse, u[:, shape.plain :])
        return torch.cat([u[:, : shape.plain] / self.w, second], -1) if shape.plain else second

    def rows(self, G: Tensor) -> Tensor:
        """W⁻¹ G for G (m, n) or (B, m, n)."""
        shape = self.by.shape
        q = G[..., shape.plain :, :].unflatten(-2, (shape.c, shape.d))
        q = (self.inverse @ q).flatten(-3, -2)
        return torch.cat([G[..., : shape.plain, :] / self.w.unsqueeze(-1), q], -2) if shape.plain else q

    def quotient(self, u: Tensor) -> Tensor:
        """λ \\ u: what λ ∘ it is u."""
        shape = self.by.shape
        a, q = shape.second(self.point), shape.second(u)
        head = (self.reflected * q).sum(-1, keepdim=True) / self.size
        second = torch.cat([head, (q[..., 1:] - head * a[..., 1:]) / a[..., :1]], -1)
        return shape.joined(u[:, : shape.plain] / self.point[:, : shape.plain], second)

    def reach(self, pair: Tensor) -> Tensor:
        """1 / the longest step from λ along both directions (2, B, m) that stays in the cone, at least 0, (B, 1)."""
        shape = self.by.shape
        q = shape.second(pair)
        inner = (self.reflected * q).sum(-1, keepdim=True)
        rest = q[..., 1:] - (inner + q[..., :1]) * self.slope
        most = ((rest.norm(dim=-1, keepdim=True) - inner) / self.size).amax((0, 2))
        if shape.plain:
            along = (-pair[..., : shape.plain] / self.point[:, : shape.plain]).amax((0, 2)).unsqueeze(-1)
            most = torch.maximum(most, along)
        return most.clamp(min=0)


def _blocks_times(M: Tensor, u: Tensor) -> Tensor:
    """Blocks M (B, c, d, d) times the pieces of u (B, c d)."""
    return torch.bmm(M.flatten(0, 1), u.reshape(-1, M.shape[-1], 1)).view(u.shape)


@dataclass(frozen=True)
class NesterovTodd:
    """Mehrotra's predictor and corrector for min ½xᵀPx + qᵀx, A x = b, G x + s = h, s ∈ R₊ × second-order cones.

    Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010). An iteration factors P + GᵀW⁻²G:
    n³/3 + n²m flops a sample. It stops near the optimum, for others to finish; a sample that it does not bring there
    counts as not found, for whatever reason.
    """

    tol: float = 1e-5
    max_iter: int = 40

    def solve(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, cones: Cones, rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, n), w = s − z (B, m) in the rows of A, found (B,) and iterations (B,)."""
        p = cones.zero
        shape, G, h, back = uniform(cones, A, b)
        (x, y, z, s), found, iterations = self._iterate(P, q, A[..., :p, :], b[..., :p], G, h, shape, rows)
        w = s - z if back is None else (s - z)[:, back]
        return x, torch.cat([-y, w], -1), found, iterations

    def _iterate(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor, shape: Shape, rows: int
    ) -> tuple[Point, Tensor, Tensor]:
        p = A.shape[-2]
        q, b, h = (t.expand(rows, t.shape[-1]) for t in (q, b, h))
        by, degree = Algebra.of(shape, q), shape.plain + shape.c
        at = start(P, q, A, b, G, h, shape)
        out = Point(*(t.clone() for t in at))
        rx = times(P, at.x) + q + times_transposed(G, at.z)
        if p:
            rx = rx + times_transposed(A, at.y)
        ry, rz = times(A, at.x) - b, times(G, at.x) + at.s - h
        left = torch.ones_like(rx[:, :1])  # of the residuals, which a step of length α reduces by 1 − α
        live = torch.arange(rows, device=q.device)
        found, iterations, count = torch.zeros_like(live, dtype=torch.bool), live.clone(), torch.zeros_like(live)
        open_ = ~found
        few = max(1, SMALL // (q.shape[-1] * max(1, h.shape[-1])))
        for it in range(self.max_iter + 1):
            gap = (at.s * at.z).sum(-1, keepdim=True)
            size = 1 + (q * at.x).sum(-1, keepdim=True).abs()
            done = ((gap <= self.tol * size) & (left <= self.tol)).squeeze(-1)
            open_ = open_ & ~done & gap.isfinite().squeeze(-1)
            running = int(open_.sum()) if it < self.max_iter else 0
            if not running or (2 * running <= len(open_) and len(open_) > few):  # until then the settled stay
                for t, value in zip((*out, found, iterations), (*at, done, count), strict=True):
                    t[live] = value
                if not running:
                    break
                live, count, at = live[open_], count[open_], Point(*(t[open_] for t in at))
                q, rx, ry, rz, gap, left = (t[open_] for t in (q, rx, ry, rz, gap, left))
                P, A, G = (t if t.ndim == 2 else t[open_] for t in (P, A, G))
                open_ = torch.ones_like(live, dtype=torch.bool)
            count = count + open_
            there, step = _step(P, A, G, by, at, rx, ry, rz, gap / degree)
            if running < len(open_):
                kept = open_.unsqueeze(-1)
                there = Point(*(torch.where(kept, new, old) for new, old in zip(there, at, strict=True)))
                step = torch.where(kept, step, 0.0)
            at = there
            rest = 1 - step
            rx, rz, left = rest * rx, rest * rz, rest * left
            ry = rest * ry if p else ry
        return out, found, iterations


class _Plain(NamedTuple):
    """A Cholesky factor of P + GᵀG, without equalities."""

    L: Tensor

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cholesky_solve(f.unsqueeze(-1), self.L).squeeze(-1), g


def _system(P: Tensor, A: Tensor, G: Tensor, like: Tensor) -> Newton | _Plain:
    """P + GᵀG with the equalities A. Without them a factor that fails leaves the sample for others."""
    if not A.shape[-2]:
        H = P + G.mT @ G
        H.diagonal(dim1=-2, dim2=-1).mul_(1 + REGULAR).add_(TINY)
        return _Plain(torch.linalg.cholesky_ex(H)[0])
    none = like.new_zeros(())
    if A.ndim < G.ndim:
        A = A.expand(G.shape[0], *A.shape)
    elif G.ndim < A.ndim:
        G = G.expand(A.shape[0], *G.shape)
    C = torch.cat([A, G], -2)
    return Newton(Quadratic(P, none, C, none, A.shape[-2]), like.new_ones(1, G.shape[-2]))


def start(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor, shape: Shape) -> Point:
    """The least-squares point, slacks and multipliers moved into the cones."""
    x, y = _system(P, A, G, q).solve(times_transposed(G, h) - q, b)
    s = h - times(G, x)
    return Point(x, y, *_inside(torch.stack([-s, s]), shape).unbind())


def _inside(v: Tensor, shape: Shape) -> Tensor:
    q = shape.second(v)
    short = q[..., 1:].norm(dim=-1) - q[..., 0]
    if shape.plain:
        short = torch.cat([short, -v[..., : shape.plain]], -1)
    short = short.amax(-1, keepdim=True)
    add = torch.where(short >= -1e-2 * (1 + v.norm(dim=-1, keepdim=True)), 1 + short, 0.0)
    moved = v.clone()
    moved[..., : shape.plain] += add
    shape.second(moved)[..., 0] += add
    return moved


def _step(
    P: Tensor, A: Tensor, G: Tensor, by: Algebra, at: Point, rx: Tensor, ry: Tensor, rz: Tensor, mu: Tensor
) -> tuple[Point, Tensor]:
    """The next point, and the length of the step."""
    W = Scaling.of(by, at.s, at.z)
    Gs, below = W.rows(G), W.undo(rz)
    newton = _system(P, A, Gs, at.x)

    def direction(centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dy, and W dz, W⁻¹ ds with λ ∘ (W dz + W⁻¹ ds) = λ ∘ centre."""
        part = below + centre
        dx, dy = newton.solve(-rx - times_transposed(Gs, part), -ry)
        dz = times(Gs, dx) + part
        return dx, dy, torch.stack([dz, centre - dz])

    _, _, pair = direction(-W.point)
    step = W.reach(pair).clamp(min=1.0).reciprocal()
    ahead = (torch.addcmul(W.point, step, pair[0]) * torch.addcmul(W.point, step, pair[1])).sum(-1, keepdim=True)
    now = W.point.square().sum(-1, keepdim=True)
    sigma = (ahead / now.clamp(min=TINY)).clamp(0, 1) ** 3
    centre = W.quotient(sigma * mu * by.e - by.product(pair[1], pair[0])) - W.point
    dx, dy, pair = direction(centre)
    step = (W.reach(pair) / FRACTION).clamp(min=1.0).reciprocal()
    z, s = at.z + step * W.undo(pair[0]), at.s + step * W.apply(pair[1])
    return Point(at.x + step * dx, at.y + step * dy if dy.shape[-1] else dy, z, s), step
