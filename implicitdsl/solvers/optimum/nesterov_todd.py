"""Second-order cone programs with a quadratic objective: a primal-dual interior point with Nesterov–Todd scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .cones import Cones
from .interior_point import Newton
from .quadratic import Quadratic, peak, times, times_transposed

FRACTION = 0.99
"""Of the step to the boundary."""
TINY = 1e-280


class Shape(NamedTuple):
    """Slacks are vectors (B, plain + c d): nonnegative entries, then c second-order cones of length d (shorter ones are
    padded with zeros, which stay zero)."""

    plain: int
    c: int
    d: int

    def second(self, v: Tensor) -> Tensor:
        """(B, c, d), a view."""
        return v[:, self.plain :].unflatten(-1, (self.c, self.d))

    def joined(self, linear: Tensor, second: Tensor) -> Tensor:
        return torch.cat([linear, second.flatten(-2)], -1) if self.plain else second.flatten(-2)


class Point(NamedTuple):
    """x (B, n), multipliers y (B, p) of the equalities and z (B, m) of the cones, slacks s (B, m)."""

    x: Tensor
    y: Tensor
    z: Tensor
    s: Tensor


def reflected(v: Tensor) -> Tensor:
    """J v = (v₀, −v₁)."""
    return torch.cat([v[..., :1], -v[..., 1:]], -1)


def lorentz(u: Tensor, v: Tensor) -> Tensor:
    """uᵀ J v, (…, 1)."""
    product = u * v
    return 2 * product[..., :1] - product.sum(-1, keepdim=True)


class Scaling(NamedTuple):
    """W with W z = W⁻¹ s = λ: diag(w) of the nonnegative entries, η (2 v vᵀ − J) of each cone (Vandenberghe 2010, §4).

    w (B, plain); eta (B, c, 1); v (B, c, d); point λ (B, m).
    """

    shape: Shape
    w: Tensor
    eta: Tensor
    v: Tensor
    point: Tensor

    @staticmethod
    def of(shape: Shape, s: Tensor, z: Tensor) -> Scaling:
        plain = shape.plain
        w = (s[:, :plain] / z[:, :plain]).sqrt()
        sq, zq = shape.second(s), shape.second(z)
        ss, zz = lorentz(sq, sq).clamp(min=TINY).sqrt(), lorentz(zq, zq).clamp(min=TINY).sqrt()
        sq, zq = sq / ss, zq / zz
        gamma = ((1 + (sq * zq).sum(-1, keepdim=True)) / 2).sqrt()
        v = (sq + reflected(zq)) / (2 * gamma)
        head = v[..., :1] + 1
        v = torch.cat([head, v[..., 1:]], -1) / (2 * head).sqrt()
        found = Scaling(shape, w, (ss / zz).sqrt(), v, s)
        return found._replace(point=found.apply(z))

    def apply(self, u: Tensor) -> Tensor:
        """W u."""
        q = self.shape.second(u)
        q = self.eta * (2 * self.v * (self.v * q).sum(-1, keepdim=True) - reflected(q))
        return self.shape.joined(self.w * u[:, : self.shape.plain], q)

    def undo(self, u: Tensor) -> Tensor:
        """W⁻¹ u."""
        q = self.shape.second(u)
        q = (2 * reflected(self.v) * lorentz(self.v, q) - reflected(q)) / self.eta
        return self.shape.joined(u[:, : self.shape.plain] / self.w, q)

    def rows(self, G: Tensor) -> Tensor:
        """W⁻¹ G for G (m, n) or (B, m, n)."""
        shape = self.shape
        q = G[..., shape.plain :, :].unflatten(-2, (shape.c, shape.d))
        u = reflected(self.v)
        sign = torch.ones_like(u[0, 0])
        sign[1:] = -1
        q = (2 * u.unsqueeze(-1) * (u.unsqueeze(-2) @ q) - sign.unsqueeze(-1) * q) / self.eta.unsqueeze(-1)
        q = q.flatten(-3, -2)
        return torch.cat([G[..., : shape.plain, :] / self.w.unsqueeze(-1), q], -2) if shape.plain else q

    def product(self, u: Tensor, v: Tensor) -> Tensor:
        """u ∘ v: entry by entry; of a cone (uᵀv, u₀ v₁ + v₀ u₁)."""
        p, q, k = self.shape.second(u), self.shape.second(v), self.shape.plain
        both = torch.cat([(p * q).sum(-1, keepdim=True), p[..., :1] * q[..., 1:] + q[..., :1] * p[..., 1:]], -1)
        return self.shape.joined(u[:, :k] * v[:, :k], both)

    def quotient(self, u: Tensor) -> Tensor:
        """λ \\ u: what λ ∘ it is u."""
        k, a, q = self.shape.plain, self.shape.second(self.point), self.shape.second(u)
        head = lorentz(a, q) / lorentz(a, a).clamp(min=TINY)
        second = torch.cat([head, (q[..., 1:] - head * a[..., 1:]) / a[..., :1]], -1)
        return self.shape.joined(u[:, :k] / self.point[:, :k], second)

    def identity(self) -> Tensor:
        """e, whose entries are one, and (1, 0) of a cone."""
        e = torch.zeros_like(self.point[:1])
        e[:, : self.shape.plain] = 1
        self.shape.second(e)[..., 0] = 1
        return e

    def reach(self, *directions: Tensor) -> Tensor:
        """1 / the longest step from λ along the directions that stays in the cone, at least 0, (B, 1)."""
        k, a = self.shape.plain, self.shape.second(self.point)
        size = lorentz(a, a).clamp(min=TINY).sqrt()
        a = a / size
        found: list[Tensor] = []
        for u in directions:
            q = self.shape.second(u)
            inner = lorentz(a, q)
            rest = q[..., 1:] - (inner + q[..., :1]) / (a[..., :1] + 1) * a[..., 1:]
            found.append(((rest.norm(dim=-1, keepdim=True) - inner) / size).squeeze(-1))
            if k:
                found.append(-u[:, :k] / self.point[:, :k])
        return torch.cat(found, -1).amax(-1, keepdim=True).clamp(min=0)


@dataclass(frozen=True)
class NesterovTodd:
    """Mehrotra's predictor and corrector for min ½xᵀPx + qᵀx, A x = b, G x + s = h, s ∈ R₊ × second-order cones.

    Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010). An iteration factors P + GᵀW⁻²G:
    n³/3 + n²m flops a sample. It stops near the optimum, for others to finish; a sample that it does not bring there
    counts as not found, for whatever reason.
    """

    tol: float = 1e-6
    max_iter: int = 40

    def solve(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, cones: Cones, rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, n), w = s − z (B, m) in the rows of A, found (B,) and iterations (B,)."""
        p, plain = cones.zero, cones.nonneg
        places, there = cones.padded
        shape = Shape(plain, *places.shape)
        index = torch.cat([torch.arange(plain), plain + places.flatten()]).to(q.device)
        mask = torch.cat([torch.ones(plain, dtype=torch.bool), there.flatten()]).to(q.device)
        G, h = A[..., p:, :][..., index, :], b[..., p:][..., index]
        if not bool(mask.all()):
            G, h = G * mask.unsqueeze(-1), h * mask
        (x, y, z, s), found, iterations = self._iterate(P, q, A[..., :p, :], b[..., :p], G, h, shape, rows)
        back = mask.nonzero().squeeze(-1)
        return x, torch.cat([-y, (s - z)[:, back]], -1), found, iterations

    def _iterate(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor, shape: Shape, rows: int
    ) -> tuple[Point, Tensor, Tensor]:
        p = A.shape[-2]
        q, b, h = (t.expand(rows, t.shape[-1]) for t in (q, b, h))
        degree = shape.plain + shape.c
        at = _start(P, q, A, b, G, h, shape)
        out = Point(*(t.clone() for t in at))
        live = torch.arange(rows, device=q.device)
        found, iterations = torch.zeros_like(live, dtype=torch.bool), torch.full_like(live, self.max_iter)
        for it in range(self.max_iter):
            Px, Az, Gx = times(P, at.x), times_transposed(G, at.z), times(G, at.x)
            rx = Px + q + Az
            rz = Gx + at.s - h
            if p:
                rx = rx + times_transposed(A, at.y)
            ry = times(A, at.x) - b
            gap = (at.s * at.z).sum(-1, keepdim=True)
            value = ((0.5 * Px + q) * at.x).sum(-1).abs()
            error = torch.maximum(peak(rx) / (1 + peak(q, Az)), peak(rz, ry) / (1 + peak(h, b, Gx)))
            error = torch.maximum(error, gap.squeeze(-1) / (1 + value))
            done, lost = error <= self.tol, ~error.isfinite()
            if bool((done | lost).any()):
                where = live[done]
                for t, value_ in zip(out, at, strict=True):
                    t[where] = value_[done]
                found[where], iterations[where] = True, it
                left = ~(done | lost)
                if not bool(left.any()):
                    break
                live = live[left]
                at = Point(*(t[left] for t in at))
                q, b, h, rx, ry, rz, gap = (t[left] for t in (q, b, h, rx, ry, rz, gap))
                P, A, G = (t if t.ndim == 2 else t[left] for t in (P, A, G))
            at = _step(P, A, G, shape, at, rx, ry, rz, gap / degree)
        return out, found, iterations


def _system(P: Tensor, A: Tensor, G: Tensor, like: Tensor) -> Newton:
    """P + GᵀG with the equalities A."""
    C = G if not A.shape[-2] else _stacked(A, G)
    none = like.new_zeros(())
    return Newton(Quadratic(P, none, C, none, A.shape[-2]), like.new_ones(1, G.shape[-2]))


def _stacked(A: Tensor, G: Tensor) -> Tensor:
    if A.ndim < G.ndim:
        A = A.expand(G.shape[0], *A.shape)
    elif G.ndim < A.ndim:
        G = G.expand(A.shape[0], *G.shape)
    return torch.cat([A, G], -2)


def _start(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor, shape: Shape) -> Point:
    """The least-squares point, slacks and multipliers moved into the cones."""
    x, y = _system(P, A, G, q).solve(times_transposed(G, h) - q, b)
    s = h - times(G, x)
    return Point(x, y, _inside(-s, shape), _inside(s, shape))


def _inside(v: Tensor, shape: Shape) -> Tensor:
    q = shape.second(v)
    short = q[..., 1:].norm(dim=-1) - q[..., 0]
    if shape.plain:
        short = torch.cat([short, -v[:, : shape.plain]], -1)
    short = short.amax(-1, keepdim=True)
    add = torch.where(short >= -1e-2 * (1 + v.norm(dim=-1, keepdim=True)), 1 + short, 0.0)
    moved = v.clone()
    moved[:, : shape.plain] += add
    shape.second(moved)[..., 0] += add
    return moved


def _step(
    P: Tensor, A: Tensor, G: Tensor, shape: Shape, at: Point, rx: Tensor, ry: Tensor, rz: Tensor, mu: Tensor
) -> Point:
    W = Scaling.of(shape, at.s, at.z)
    Gs, below = W.rows(G), W.undo(rz)
    newton = _system(P, A, Gs, at.x)

    def direction(centre: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dx, dy, W dz and W⁻¹ ds with λ ∘ (W dz + W⁻¹ ds) = λ ∘ centre, residuals reduced by `keep`."""
        part = keep * below + centre
        dx, dy = newton.solve(-keep * rx - times_transposed(Gs, part), -keep * ry)
        dz = times(Gs, dx) + part
        return dx, dy, dz, centre - dz

    _, _, dz, ds = direction(-W.point, 1.0)
    step = W.reach(dz, ds).clamp(min=1.0).reciprocal()
    ahead = ((W.point + step * dz) * (W.point + step * ds)).sum(-1, keepdim=True)
    now = W.point.square().sum(-1, keepdim=True)
    sigma = (ahead / now.clamp(min=TINY)).clamp(0, 1) ** 3
    centre = -W.point + W.quotient(sigma * mu * W.identity() - W.product(ds, dz))
    dx, dy, dz, ds = direction(centre, 1.0)
    step = (W.reach(dz, ds) / FRACTION).clamp(min=1.0).reciprocal()
    # W (λ + α ds) and W⁻¹ (λ + α dz): in the cones also after rounding
    return Point(at.x + step * dx, at.y + step * dy, at.z + step * W.undo(dz), at.s + step * W.apply(ds))
