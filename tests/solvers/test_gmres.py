"""GMRES on large systems in float32: rounding does not stall it, and it keeps no more directions than it took steps."""

from __future__ import annotations

import torch
from torch import Tensor

from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.problem import RootProblem


def tokenwise(rows: int) -> tuple[RootProblem, Tensor]:
    """A z = b with A = I - 0.15 (I ⊗ W), W of 256 × 256 entries and spectral radius about 1."""
    generator = torch.Generator().manual_seed(0)
    w = 0.15 * torch.randn(256, 256, generator=generator) / 16
    b = torch.randn(rows, 16 * 256, generator=generator)

    def residual(z: Tensor, b: Tensor) -> Tensor:
        return z - (z.unflatten(-1, (16, 256)) @ w.to(z)).flatten(1) - b

    return RootProblem(residual=residual, ranks=(1,), affine=True), b


def test_rounding_does_not_stall_it() -> None:
    problem, b = tokenwise(16)
    solved = Gmres().solve(problem, torch.zeros_like(b), (b,))
    assert solved.converged.all()
    assert int(solved.iterations.max()) <= 9  # 0.15⁸ is below the tolerance
    exact = Gmres().solve(problem, torch.zeros_like(b).double(), (b.double(),))
    error = (solved.z - exact.z).norm(dim=1) / exact.z.norm(dim=1)
    assert float(error.max()) <= 2e-6


def test_memory_grows_with_the_steps_up_to_the_limit() -> None:
    problem, b = tokenwise(2)
    method = Gmres(restart=3)
    state = method.init(problem, torch.zeros_like(b), (b,))
    kept: list[int] = []
    for _ in range(5):
        state = method.step(problem, (b,), state)
        kept.append(state.q.shape[1])
    assert kept == [1, 2, 3, 3, 3]
    gram = state.q @ state.q.mT
    torch.testing.assert_close(gram, torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-5)
