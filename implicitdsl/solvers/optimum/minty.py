"""Second-order cone programs by Newton's method on smoothed optimality conditions, in Minty's variable w = s − z."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array, lengths
from .cones import Cones
from .nesterov_todd import REGULAR, SMALL, TINY, Shape, start, uniform
from .quadratic import cholesky_times, plus, times_transposed

FALL, FAST, CENTRED = 0.1, 0.01, 0.1
"""Of μ, what is left after a step; after one from where the residual is so small a multiple of μ, relative to the
start; that multiple."""
LEAST = 1e-10
"""μ falls to no less, relative to its start."""
WIDE = 1e8
"""Units of z are off those of s by no more."""
FAR = 2.0
"""How long steps are at most in the metric of the central path: (dsᵀM ds / μ)½, relative to the root of the number of
cones. The next point is on s ∘ z = μ e again, however far it goes; it is the linear equations that suffer."""


class _Frame(NamedTuple):
    """The point with s − z/θ = w and s ∘ z = μ e, and the derivative −M of z by s there: of a plain entry κ²/2, of a
    cone κκᵀ − J det. In the frame of w, whose eigenvalues λ are its plain entries and t ± ‖y‖ of cones (t, y), those of
    s are √(μ/θ) exp asinh(½ λ √(θ/μ)).

    s, κ (B, m); κ of the `cones` (B, c, d); `det` (B, c, 1), half of it; `signed` (B, c, d), J det.
    """

    s: Tensor
    k: Tensor
    cones: Tensor
    det: Tensor
    signed: Tensor

    @staticmethod
    def of(w: Tensor, wide: Tensor, root: Tensor, slope: Tensor, shape: Shape, J: Tensor) -> _Frame:
        """`wide` ½ √(θ/μ), `root` ½ √(μ/θ), `slope` √(θ/2) (B, 1); J (d,) twice diag(1, −1, …)."""
        q, k = shape.second(w), shape.plain
        t, y = q[..., :1], q[..., 1:]
        r = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp_(min=TINY)
        each = torch.cat([t - r, t + r], -1).flatten(1)
        each = torch.cat([w[:, :k], each], -1) if k else each
        e = (each * wide).asinh_().exp_()  # √(θ s / z)
        both = torch.stack([e * root, slope / e])
        pair = (both[..., k:] if k else both).unflatten(-1, (shape.c, 2))
        low, high = pair[..., :1], pair[..., 1:]
        second = torch.cat([high + low, (high - low) * (y / r)], -1)
        s, kappa = second.unbind()
        det = low[1] * high[1]
        if not k:
            return _Frame(s.flatten(1), kappa.flatten(1), kappa, det, det * J)
        whole = torch.cat([2 * both[..., :k], second.flatten(-2)], -1)
        return _Frame(whole[0], whole[1], kappa, det, det * J)

    def curved(self, v: Tensor, shape: Shape) -> Tensor:
        """M v."""
        K, q, k = self.cones, shape.second(v), shape.plain
        inner = (K * q).sum(-1, keepdim=True)
        found = torch.addcmul(K * inner, self.signed, q, value=-1).flatten(1)
        return torch.cat([0.5 * self.k[:, :k].square() * v[:, :k], found], -1) if k else found


@dataclass(frozen=True)
class _Program:
    """P, q (B, n), G and h (B, m), the equations A and b (B, p); `grams` (plain + c, n²) are the products GᵢᵀJGᵢ where
    G is shared and they are few numbers: then most of a Hessian is one product."""

    shape: Shape
    P: Tensor
    q: Tensor
    G: Tensor
    h: Tensor
    A: Tensor
    b: Tensor
    J: Tensor
    grams: Tensor | None

    @classmethod
    def of(cls, shape: Shape, P: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> _Program:
        """With equations, P and q are those of the augmented Lagrangian, which has the same solutions."""
        if b.shape[-1]:
            size = A.square().sum((-2, -1)).clamp(min=TINY)
            rho = (P.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1.0) / size).unsqueeze(-1)
            q = q - rho * times_transposed(A, b)
            P = P + rho.unsqueeze(-1) * (A.mT @ A)
        J = G.new_full((shape.d,), -2.0)
        J[0] = 2
        n, k = G.shape[-1], shape.plain
        grams: Tensor | None = None
        if G.ndim == 2 and (k + shape.c) * n * n <= SMALL:
            second = G[k:].unflatten(0, (shape.c, shape.d))
            grams = -(second.mT @ (J.unsqueeze(-1) * second)).flatten(1)
            if k:
                grams = torch.cat([0.5 * (G[:k].unsqueeze(-1) * G[:k].unsqueeze(-2)).flatten(1), grams])
        return cls(shape, P, q, G, h, A, b, J, grams)

    def select(self, index: Tensor) -> _Program:
        """Some samples."""
        P, G, A = (t if t.ndim == 2 else t[index] for t in (self.P, self.G, self.A))
        return replace(self, P=P, q=self.q[index], G=G, h=self.h[index], A=A, b=self.b[index])

    def hessian(self, f: _Frame) -> Tensor:
        """P + GᵀM G."""
        shape, k, n = self.shape, self.shape.plain, self.G.shape[-1]
        K = f.cones
        G = self.G[..., k:, :].unflatten(-2, (shape.c, shape.d))
        if self.grams is not None:
            weights = f.det.squeeze(-1)
            weights = torch.cat([f.k[:, :k].square(), weights], -1) if k else weights
            H = torch.addmm(self.P.flatten(-2), weights, self.grams).unflatten(-1, (n, n))
            g = torch.bmm(K.transpose(0, 1), G).transpose(0, 1)
        else:
            weights = torch.cat([0.5 * f.k[:, :k].square(), -f.signed.flatten(1)], -1)
            H = self.P + (weights.unsqueeze(-1) * self.G).mT @ self.G
            g = (K.unsqueeze(-2) @ G).squeeze(-2)
        H = torch.baddbmm(H, g.mT, g)
        H.diagonal(dim1=-2, dim2=-1).mul_(1 + REGULAR)
        return H

    def newton(self, f: _Frame, right: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) with H u + Aᵀv = right, A u = off for the Hessian H."""
        L = torch.linalg.cholesky_ex(self.hessian(f))[0]
        if not off.shape[-1]:
            return cholesky_times(L, right), off
        T = torch.linalg.solve_triangular(L, self.A.mT.expand(len(L), -1, -1), upper=False)
        half = torch.linalg.solve_triangular(L, right.unsqueeze(-1), upper=False)
        E = T.mT @ T
        E.diagonal(dim1=-2, dim2=-1).mul_(1 + REGULAR)
        v = torch.cholesky_solve(torch.baddbmm(off.unsqueeze(-1), T.mT, half, beta=-1), torch.linalg.cholesky_ex(E)[0])
        u = torch.linalg.solve_triangular(L.mT, torch.baddbmm(half, T, v, alpha=-1), upper=True)
        return u.squeeze(-1), v.squeeze(-1)


@dataclass(frozen=True)
class Minty:
    """min ½xᵀPx + qᵀx, A x = b, G x + s = h, s ∈ R₊ × second-order cones, by Newton's method on

        P x + q + Aᵀy + Gᵀz = 0,  A x = b,  G x + s = h,  s = ½ (w + √(w² + 4 μ/θ)),  z = θ (s − w)

    with μ → 0. Every iterate is exactly on s ∘ z = μ e: nothing is cut off at boundaries, the scaling is a function of
    w, and a step is one substitution (Burke & Xu 1998 and Chen & Tseng 2003, without neighbourhoods: steps are bounded
    instead). The units θ of z follow ‖z‖ / ‖s‖. A step factors P + GᵀM G: n³/3 + n²c flops a sample where G is shared,
    n³/3 + n²m where it is not, and a third of the operators of `NesterovTodd`, which is surer. It stops near the
    optimum, for others to finish; what it does not bring there counts as not found. Equations are eliminated in every
    step, n²p flops for p of them.
    """

    tol: float = 1e-5
    max_iter: int = 20

    @np.errstate(all="ignore")
    def solve(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, cones: Cones, rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, n), w = s − z (B, m) in the rows of A, found (B,) and iterations (B,)."""
        shape, G, h, back = uniform(cones, A, b)
        A, b = A[..., : cones.zero, :], b[..., : cones.zero]
        q, h, b = (t.expand(rows, t.shape[-1]) for t in (q, h, b))
        (x, y, z, s), degree = start(P, q, A, b, G, h, shape), shape.plain + shape.c
        program = _Program.of(shape, P, q, G, h, A, b)
        mu = array((s * z).sum(-1)) / degree
        begin, few = mu, max(1, SMALL // (q.shape[-1] * max(1, h.shape[-1])))
        size = [lengths(t) for t in ((q, h, b) if cones.zero else (q, h))]
        scale = size
        live, found, count = np.arange(rows), np.zeros(rows, dtype=bool), np.zeros(rows, dtype=np.int64)
        out: list[Tensor] = []
        for it in range(self.max_iter + 1):
            theta = np.clip(lengths(z) / lengths(s), 1 / WIDE, WIDE)
            root = 0.5 * np.sqrt(mu / theta)
            units, *pieces = _columns(x, theta, 0.25 / root, root, np.sqrt(0.5 * theta))
            w = torch.addcdiv(s, z, units, value=-1)
            f = _Frame.of(w, *pieces, shape, program.J)
            s, z = f.s, units * (f.s - w)
            short = plus(s - program.h, x, program.G.mT)
            stationary, aside = plus(plus(program.q, x, program.P), z, program.G), y
            off = [short]
            if cones.zero:
                stationary, aside = plus(stationary, y, program.A), plus(program.b, x, program.A.mT, of_b=-1)
                off.append(aside)
            off = [lengths(t) for t in (stationary, *off)]
            if not it:
                scale = [a + b + 1e-300 for a, b in zip(size, off, strict=True)]
            error = np.maximum.reduce([a / (1 + b) for a, b in zip(off, size, strict=True)])
            done = (error <= self.tol) & (mu <= self.tol * np.maximum(begin, 1.0))
            open_ = ~done & np.isfinite(error)
            left = int(open_.sum()) if it < self.max_iter else 0
            if not left or (2 * left <= len(live) and len(live) > few):  # until then the settled stay
                found[live] = done
                out = _put(out, live, (x, torch.cat([-y, s - z], -1) if cones.zero else s - z))
                if not left:
                    break
                live, mu, begin, index = live[open_], mu[open_], begin[open_], torch.from_numpy(open_).to(x.device)
                size, scale, off = ([t[open_] for t in pair] for pair in (size, scale, off))
                x, y, s, z, short, stationary, aside = (t[index] for t in (x, y, s, z, short, stationary, aside))
                program, f, open_ = program.select(index), _Frame(*(t[index] for t in f)), open_[open_]
            count[live] += open_
            near = np.maximum.reduce([a / b for a, b in zip(off, scale, strict=True)]) * begin <= CENTRED * mu
            target = np.maximum(np.where(near, FAST, FALL) * mu, LEAST * begin)
            (add,) = _columns(x, (target - mu) / np.sqrt(2 * mu))
            right = plus(stationary, torch.addcmul(f.curved(short, shape), f.k, add), program.G)
            dx, dy = program.newton(f, right, aside)
            ds = plus(short, dx, program.G.mT, of_x=-1)
            dz = f.curved(ds, shape)
            length = np.sqrt(array((ds * dz).sum(-1)).clip(min=0) / mu)
            step = np.minimum(1.0, FAR * math.sqrt(degree) / np.maximum(length, 1e-300))
            dz = torch.addcmul(dz, f.k, add)
            mu = mu + step * (target - mu)
            (alpha,) = _columns(x, step)
            x, s = (torch.addcmul(t, alpha, d, value=-1) for t, d in ((x, dx), (s, ds)))
            y, z = torch.addcmul(y, alpha, dy, value=-1) if cones.zero else y, torch.addcmul(z, alpha, dz)
        x, w = out
        done, count = (torch.from_numpy(t).to(x.device) for t in (found, count))
        return x, w if back is None else torch.cat([w[:, : cones.zero], w[:, cones.zero :][:, back]], -1), done, count


def _columns(like: Tensor, *values: Array) -> tuple[Tensor, ...]:
    """Numbers a sample (B,) as tensors (B, 1)."""
    return torch.from_numpy(np.stack(values)[..., None]).to(like).unbind()


def _put(whole: list[Tensor], rows: Array, values: tuple[Tensor, ...]) -> list[Tensor]:
    """The values in the rows that are left; at first these are all."""
    if not whole:
        return list(values)
    index = torch.from_numpy(rows).to(values[0].device)
    return [t.index_copy(0, index, v) for t, v in zip(whole, values, strict=True)]
