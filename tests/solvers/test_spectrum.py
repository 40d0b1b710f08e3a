"""The Jacobian at a solution by its products: Frobenius norm, spectral radius, distance, for known matrices."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from implicitdsl.ground.errors import ConvergenceWarning
from implicitdsl.solvers import spectrum
from implicitdsl.solvers.problem import RootProblem

F64 = torch.float64
LINEAR = RootProblem(step=lambda z, w, x: (w @ z.unsqueeze(-1)).squeeze(-1) + x, ranks=(2, 1))


def rotations(n: int, radius: float) -> Tensor:
    """Eigenvalues in complex pairs, the largest of size `radius`, in a basis that is far from orthogonal."""
    generator = torch.Generator().manual_seed(n)
    blocks = []
    for k in range(n // 2):
        size, angle = radius if k == 0 else 0.8 * radius * k / n, 2.0 + 0.1 * k
        blocks.append(size * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]))
    basis = torch.eye(n, dtype=F64) + torch.triu(torch.randn(n, n, generator=generator, dtype=F64), 1) / n**0.5
    return basis @ torch.block_diag(*blocks).to(F64) @ torch.linalg.inv(basis)


def radius(w: Tensor) -> Tensor:
    z = torch.zeros(w.shape[0], w.shape[-1], dtype=w.dtype)
    return spectrum.spectral_radius(LINEAR, z, (w, z))


@pytest.mark.parametrize("n", [2, 40, 300])
def test_complex_pairs_in_a_skewed_basis(n: int) -> None:
    w = torch.stack([rotations(n, 0.9), rotations(n, 1.3)])
    assert (radius(w) - torch.tensor([0.9, 1.3], dtype=F64)).abs().max() < 5e-3
    assert torch.linalg.matrix_norm(w, 2).min() > 0.95  # the norm is no estimate of the radius


def test_a_jordan_block_has_the_radius_of_its_diagonal() -> None:
    w = 0.5 * torch.eye(3, dtype=F64) + 5 * torch.diag(torch.ones(2, dtype=F64), 1)
    torch.testing.assert_close(radius(w[None]), torch.tensor([0.5], dtype=F64), rtol=1e-4, atol=0)


def test_a_nilpotent_matrix_of_any_size_has_radius_zero() -> None:
    for n in (5, 200):
        w = torch.zeros(1, n, n, dtype=F64)
        w[:, 0, 1] = 7.0
        assert float(radius(w)) < 1e-6


def test_one_large_real_eigenvalue_among_many() -> None:
    n = 400
    d = torch.linspace(-0.5, 0.5, n, dtype=F64)
    d[17] = -0.95
    w = torch.diag(d) + torch.triu(torch.full((n, n), 0.001, dtype=F64), 1)
    torch.testing.assert_close(radius(w[None]), torch.tensor([0.95], dtype=F64), rtol=2e-3, atol=0)


def test_what_does_not_settle_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "RESTARTS", 1)
    monkeypatch.setattr(spectrum, "KRYLOV", 3)
    with pytest.warns(ConvergenceWarning, match="did not settle"):
        radius(rotations(300, 0.9)[None])


def test_rows_of_nan_are_nan_and_leave_the_others_alone() -> None:
    for n in (4, 200):
        w = torch.stack([0.3 * torch.eye(n, dtype=F64), torch.full((n, n), torch.nan, dtype=F64)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = radius(w)
        torch.testing.assert_close(found[0], torch.tensor(0.3, dtype=F64))
        assert found[1].isnan()


def test_elementwise_maps_need_no_matrix() -> None:
    problem = RootProblem(step=lambda z, c: c * z, ranks=(1,), diagonal=True)
    c = torch.tensor([[0.1, -0.7], [0.2, 0.3]], dtype=F64)
    torch.testing.assert_close(spectrum.spectral_radius(problem, torch.ones_like(c), (c,)), c.abs().amax(-1))


def test_the_frobenius_norm_exact_and_estimated() -> None:
    torch.manual_seed(0)
    w = torch.randn(3, 6, 6, dtype=F64, requires_grad=True)
    z = torch.zeros(3, 6, dtype=F64)
    right = w.square().sum((-2, -1))
    exact = spectrum.jacobian_norm(LINEAR, z, (w, z), None)
    torch.testing.assert_close(exact, right)
    many = spectrum.jacobian_norm(LINEAR, z, (w, z), 4000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(many, right, rtol=0.1, atol=0)
    (gradient,) = torch.autograd.grad(many.sum(), w)
    torch.testing.assert_close(gradient, 2 * w, rtol=0.3, atol=0.3)
    with pytest.raises(ValueError, match="at least one"):
        spectrum.jacobian_norm(LINEAR, z, (w, z), 0)


def test_the_distance_to_the_solution_of_a_linear_map_is_exact() -> None:
    torch.manual_seed(0)
    for n, dense in ((5, True), (150, False)):
        w = 0.5 * torch.randn(4, n, n, dtype=F64) / n**0.5
        x, z = torch.randn(4, n, dtype=F64), torch.randn(4, n, dtype=F64)
        problem = LINEAR
        if dense:
            problem = RootProblem(step=LINEAR.step, ranks=(2, 1), jacobian=lambda z, w, x: torch.eye(len(w[0])) - w)
        right = torch.linalg.solve(torch.eye(n, dtype=F64) - w, x) - z
        torch.testing.assert_close(spectrum.distance(problem, z, (w, x)), right.norm(dim=-1), rtol=2e-2, atol=0)
