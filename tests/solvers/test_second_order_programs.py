"""Second-order cone programs in Minty's variable against Nesterov–Todd: optima, units, lost samples, leaving ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.optimum import minty
from implicitdsl.solvers.optimum.cones import Cones
from implicitdsl.solvers.optimum.conic import Cone, Conic, optimality
from implicitdsl.solvers.optimum.minty import Minty
from implicitdsl.solvers.optimum.nesterov_todd import NesterovTodd

D = torch.float64
B, N = 12, 4
CONES = {
    "uniform": Cones(0, 0, (), (3, 3, 3)),
    "mixed": Cones(0, 2, (), (4, 1, 3)),
    "equations": Cones(2, 2, (), (4, 1, 3)),
}


def inside(cones: Cones) -> Tensor:
    parts = [torch.zeros(B, cones.zero, dtype=D), torch.rand(B, cones.nonneg, dtype=D) + 0.1]
    for k in cones.second:
        y = torch.randn(B, k - 1, dtype=D)
        parts.append(torch.cat([y.norm(dim=-1, keepdim=True) + 0.1 + torch.rand(B, 1, dtype=D), y], -1))
    return torch.cat(parts, -1)


def program(cones: Cones, shared: bool = True, curved: float = 0.1) -> Cone:
    """With points strictly inside of both cones, so that there is an optimum."""
    torch.manual_seed(cones.size + shared)
    G = torch.randn(*(() if shared else (B,)), cones.size, N, dtype=D)
    P = curved * torch.eye(N, dtype=D).expand(*(() if shared else (B,)), N, N)
    h = (torch.randn(B, 1, N, dtype=D) @ G.mT).squeeze(-2) + inside(cones)
    return Cone(P, -(inside(cones).unsqueeze(-2) @ G).squeeze(-2), G, h)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", CONES)
def test_both_methods_come_near_the_same_optimum(kind: str, shared: bool) -> None:
    cones = CONES[kind]
    problem = program(cones, shared)
    x, w, found, iterations = Minty().solve(*problem, cones, B)
    y, v, also, _ = NesterovTodd(tol=1e-9).solve(*problem, cones, B)
    assert bool((found & also).all())
    assert int(iterations.max()) < Minty.max_iter
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(w, v, rtol=1e-3, atol=1e-3)
    assert float(optimality(cones, torch.cat([x, w], -1), *problem).norm(dim=-1).max()) < 1e-3


@pytest.mark.parametrize("cost", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("length", [1e-2, 1.0, 1e2])
def test_units_do_not_matter(cost: float, length: float) -> None:
    cones = CONES["mixed"]
    P, q, G, h = program(cones)
    x, _, found, _ = Minty(tol=1e-8).solve(cost * P, cost * length * q, G, length * h, cones, B)
    y, _, _, _ = NesterovTodd(tol=1e-9).solve(P, q, G, h, cones, B)
    assert float(found.double().mean()) > 0.9
    torch.testing.assert_close((x / length)[found], y[found], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["mixed", "equations"])
def test_without_curvature_and_with_samples_that_leave(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cones = CONES[kind]
    for shared in (True, False):
        problem = program(cones, shared, curved=0.0)
        x, w, found, iterations = Minty().solve(*problem, cones, B)
        assert bool(found.all())
        monkeypatch.setattr(minty, "SMALL", 1)  # also the Hessian by rows
        z, v, again, count = Minty().solve(*problem, cones, B)
        monkeypatch.undo()
        assert bool(again.all())
        assert bool((count <= iterations).all())
        assert len(count.unique()) > 1
        torch.testing.assert_close(torch.cat([x, w], -1), torch.cat([z, v], -1), rtol=1e-2, atol=1e-2)


def test_samples_without_an_optimum_are_not_found_and_get_their_status() -> None:
    cones = Cones(0, 0, (), (3, 3))
    torch.manual_seed(0)
    G = torch.cat([torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]], dtype=D)] * 2)
    h = torch.tensor([[1.0, 0, 0, 1, 0.5, 0], [1.0, 0, 0, 1, 3.0, 0], [1.0, 0, 0, 1, 0.1, 0.2]], dtype=D)  # two discs
    P, q = torch.zeros(2, 2, dtype=D), torch.tensor([1.0, 0.3], dtype=D)
    assert Minty().solve(P, q, G, h, cones, 3)[2].tolist() == [True, False, True]
    found = Conic().solve(Cone(P, q, G, h), cones, 3)
    assert found.status.tolist() == [int(s) for s in (Outcome.CONVERGED, Outcome.INFEASIBLE, Outcome.CONVERGED)]
    F = optimality(cones, torch.cat([found.x, found.w], -1), P, q, G, h).norm(dim=-1)
    assert bool((F[[0, 2]] < 1e-12).all())
    up = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], dtype=D)  # x ≥ ‖(y, 1)‖
    line = torch.tensor([0.0, 0.0, 1.0], dtype=D)
    costs = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.9]], dtype=D)
    found = Conic().solve(Cone(P, costs, up, line), Cones(0, 0, (), (3,)), 3)
    assert found.status.tolist() == [int(s) for s in (Outcome.CONVERGED, Outcome.UNBOUNDED, Outcome.CONVERGED)]
    torch.testing.assert_close(found.x[0], torch.tensor([1.0, 0.0], dtype=D), rtol=1e-9, atol=1e-9)
