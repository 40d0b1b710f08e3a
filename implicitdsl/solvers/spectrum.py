"""The Jacobian of a fixed-point map at a point, known by its products: size, spectral radius, distance to z*."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..ground.errors import ConvergenceWarning
from .factor import factorise
from .gmres import Gmres
from .problem import Inputs, Linear, RootProblem
from .verdict import norm

DENSE = 96
"""Up to this many unknowns all eigenvalues are computed (25 n³ a row), above it a Krylov space finds the largest."""

KRYLOV = 40
"""Dimension of the Krylov space before a restart."""

RESTARTS = 25


def jacobian_norm(
    problem: RootProblem, z: Tensor, a: Inputs, samples: int | None = 1, generator: torch.Generator | None = None
) -> Tensor:
    """‖∂G/∂z‖_F² of each row, (B,), for z = G(z, a); differentiable in z and a.

    The mean of ‖(∂G/∂z)ᵀ v‖² over `samples` random vectors v of signs: unbiased, relative deviation at most
    √(2/samples). With None exact, by n products. Cost: a product with the transposed Jacobian a sample.
    Source: Hutchinson (1990); as a regulariser of equilibrium models Bai, Koltun & Kolter (2021).
    """
    if samples is not None and samples < 1:
        raise ValueError(f"jacobian_norm: at least one sample is needed, got {samples}")
    step = problem.at(a).adjoint_step(z, a)
    origin = torch.zeros_like(z).detach()
    total = torch.zeros_like(z[:, 0])
    if samples is None:
        for k in range(z.shape[-1]):
            unit = origin.clone()
            unit[:, k] = 1
            total = total + step(unit, origin).square().sum(-1)
        return total
    for _ in range(samples):
        coins = torch.randint(0, 2, z.shape, generator=generator, device=z.device)
        total = total + step((2 * coins - 1).to(z.dtype), origin).square().sum(-1)
    return total / samples


def spectral_radius(problem: RootProblem, z: Tensor, a: Inputs, tol: float = 1e-3) -> Tensor:
    """max |λ| over the eigenvalues λ of ∂G/∂z of each row, (B,), complex ones included; NaN where z is not finite.

    Up to `DENSE` unknowns all eigenvalues by QR. Above it Arnoldi's method with restarts at the leading Ritz vector,
    to ‖J y - θ y‖ ≤ tol·|θ|; rows that do not get there are named in a `ConvergenceWarning`. (|vᵀ J v| of a power
    iteration, which others report, is not the radius where J is not symmetric.) Not differentiable: where eigenvalues
    cross, the radius is not. Source: Arnoldi (1951); Saad (2011), sections 6.2 and 7.2.
    """
    with torch.no_grad():
        z, a = z.detach(), tuple(x.detach() for x in a)
        here = problem.at(a)
        finite = z.isfinite().all(-1)
        if problem.diagonal:
            found = (1 - here.J(z, a)).expand_as(z).abs().amax(-1)
        elif z.shape[-1] <= DENSE:
            found = _dense(here, z, a)
        else:
            found = _arnoldi(here, torch.where(finite.unsqueeze(-1), z, 0.0), a, tol)
        return torch.where(finite, found, torch.nan)


def _dense(here: RootProblem, z: Tensor, a: Inputs) -> Tensor:
    n = z.shape[-1]
    if n == 0:
        return z.new_zeros(z.shape[0])
    j = torch.eye(n, dtype=z.dtype, device=z.device) - here.J(z, a)
    good = j.isfinite().all(-1).all(-1)
    size = torch.linalg.eigvals(torch.where(good[..., None, None], j, 0.0)).abs().amax(-1)
    return torch.where(good, size, torch.nan).expand(z.shape[0])


def _arnoldi(here: RootProblem, z: Tensor, a: Inputs, tol: float) -> Tensor:
    """Of the transposed Jacobian, whose products are cheaper and whose eigenvalues are the same."""
    step, origin = here.adjoint_step(z, a), torch.zeros_like(z)
    generator = torch.Generator(z.device).manual_seed(0)
    start = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    found, settled = z.new_zeros(len(z)), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for _ in range(RESTARTS):
        basis, h, rest = _krylov(lambda v: step(v, origin), start)
        good = h.isfinite().all(-1).all(-1)
        values, vectors = torch.linalg.eig(torch.where(good[:, None, None], h, 0.0))
        top = values.abs().argmax(-1, keepdim=True)
        theta = values.gather(-1, top).squeeze(-1).abs()
        y = vectors.gather(-1, top.unsqueeze(-2).expand(-1, vectors.shape[-2], 1)).squeeze(-1)
        theta = torch.where(good, theta, torch.nan)
        found = torch.where(settled, found, theta)
        settled = settled | ~good | (rest * y[:, -1].abs() <= tol * theta)
        if bool(settled.all()):
            break
        # a complex pair spans a plane: any vector in it will do, but both directions of it should be there
        mixed = (y.real + y.imag).to(z.dtype)
        start = torch.bmm(mixed.unsqueeze(1), basis).squeeze(1)
    if not bool(settled.all()):
        warnings.warn(
            f"spectral radius: Arnoldi's method did not settle to {tol:g} in {int((~settled).sum())} of {len(z)} "
            "samples; theirs are estimates",
            ConvergenceWarning,
            stacklevel=4,
        )
    return found


def _krylov(product: Linear, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal basis (B, m, n) of the Krylov space, the Hessenberg matrix (B, m, m) and its last subdiagonal (B,).

    Where the space is invariant already the basis goes on with zeros, which adds eigenvalues 0 only.
    """
    m = min(KRYLOV, start.shape[-1])
    h = start.new_zeros(len(start), m, m)
    basis = (start / norm(start).unsqueeze(-1)).unsqueeze(1)
    rest = start.new_zeros(len(start))
    for k in range(m):
        w = product(basis[:, k])
        before = norm(w)
        for _ in range(2):  # twice is enough for orthogonality to rounding
            c = torch.bmm(basis, w.unsqueeze(-1)).squeeze(-1)
            w = w - torch.bmm(c.unsqueeze(1), basis).squeeze(1)
            h[:, : k + 1, k] += c
        rest = norm(w)
        alive = rest > 8 * torch.finfo(w.dtype).eps * before
        rest = torch.where(alive, rest, 0.0)
        if k + 1 < m:
            h[:, k + 1, k] = rest
            following = torch.where(alive.unsqueeze(-1), w / torch.where(alive, rest, 1.0).unsqueeze(-1), 0.0)
            basis = torch.cat((basis, following.unsqueeze(1)), 1)
    return basis, h, rest


def distance(problem: RootProblem, z: Tensor, a: Inputs) -> Tensor:
    """‖J⁻¹ F(z)‖₂ of each row, (B,): how far a Newton step would go, an estimate of ‖z - z*‖₂.

    Dense up to `DENSE` unknowns where J has a closed form, else up to 40 steps of GMRES to two digits. An estimate and
    no bound: it is right to first order in F(z).
    """
    with torch.no_grad():
        z, a = z.detach(), tuple(x.detach() for x in a)
        here = problem.at(a)
        f = here.F(z, a)
        if problem.diagonal or (z.shape[-1] <= DENSE and here.jacobian is not None) or z.shape[-1] == 1:
            return norm(factorise(here.J(z, a), problem.diagonal).solve(f))

        def hoist(z: Tensor, f: Tensor, *a: Tensor) -> RootProblem:
            push = problem.at(a).push(z, a)
            return RootProblem(lambda d, *_: push(d) - f, pushforward=lambda d, *_: push, affine=True)

        linear = RootProblem(hoist=hoist, ranks=(1, 1, *problem.ranks), affine=True)
        return norm(Gmres(tol=1e-2, max_iter=40).solve(linear, torch.zeros_like(z), (z, f, *a)).z)
