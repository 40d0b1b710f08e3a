"""The smoothed projections on cones, and what the barrier's Newton method stands on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from implicitdsl.solvers.optimum.cones import Cones, svec_matrix
from implicitdsl.solvers.optimum.regular import regular

D = torch.float64
MU = 0.1


def matrix(v: Tensor, k: int) -> Tensor:
    return (v @ svec_matrix(k)).unflatten(-1, (k, k))


@pytest.mark.parametrize("second", [(3, 3), (4, 1, 3)], ids=["uniform", "mixed"])
def test_smoothed_projections_are_on_the_central_path(second: tuple[int, ...]) -> None:
    """s − y = w, y the gradient of the barrier at s: μ / s, μ ∇ log(t² − ‖x‖²), μ S⁻¹; none where it is sharp."""
    cones = Cones(1, 3, (3, 2), second, mu=MU, sharp=(1,))
    w = torch.randn(4, cones.size, dtype=D, generator=torch.Generator().manual_seed(0))
    w[0, 1:4] = 0.0
    s = cones.project(w)
    zero, plain, cone, S, sharp = cones.parts(s)
    _, y, z, Y, none = cones.parts(s - w)
    assert not zero.any()
    torch.testing.assert_close(plain * y, torch.full_like(y, MU))
    t, x = cones.pad(cone)[..., :1], cones.pad(cone)[..., 1:]
    size = t.square() - x.square().sum(-1, keepdim=True)
    torch.testing.assert_close(cones.pad(z), 2 * MU * torch.cat([t, -x], -1) / size, rtol=1e-9, atol=1e-12)
    eye = torch.eye(3, dtype=D).expand(4, 3, 3)
    torch.testing.assert_close(matrix(S, 3) @ matrix(Y, 3), MU * eye, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sharp, Cones(0, 0, (2,)).project(sharp - none), rtol=0, atol=1e-13)


@pytest.mark.parametrize("sharp", [(), (0,)], ids=["smooth", "sharp"])
def test_their_derivatives(sharp: tuple[int, ...]) -> None:
    """Also where w is zero, where the projection itself has a kink."""
    cones = Cones(1, 2, (2,), (3, 2), mu=MU, sharp=sharp)
    w = torch.randn(2, cones.size, dtype=D, generator=torch.Generator().manual_seed(1))
    w[0, : -3 if sharp else None] = 0.0
    w.requires_grad_()
    slope = torch.func.vmap(torch.func.jacrev(lambda v: cones.project(v.unsqueeze(0)).squeeze(0)))(w)
    torch.testing.assert_close(cones.slope(w), slope, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(cones.project, (w,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(cones.project, (w,))
    assert torch.autograd.gradcheck(cones.slope, (w,))


def test_singular_matrices_of_a_batch_are_shifted_each_as_it_needs() -> None:
    """One lacks only multipliers (a redundant equation), one lacks an unknown, too."""
    redundant = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    idle = redundant.clone()
    idle[1, 1] = 0.0
    J = torch.stack([redundant, idle]).double()
    b = torch.tensor([3.0, 0.0, 1.0, 1.0], dtype=D).expand(2, 4)
    factor, singular = regular(J, 2, 2)
    assert singular.tolist() == [True, True]
    x = factor.solve(b)
    torch.testing.assert_close((J @ x.unsqueeze(-1)).squeeze(-1), b, rtol=0, atol=1e-6)
    torch.testing.assert_close(x[0], regular(J[:1], 2, 2)[0].solve(b[:1])[0])
