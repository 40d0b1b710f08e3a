"""The interior point on quadratic and linear programs: against CVXPY, and on problems without a solution."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.optimum import complementary, dual, exchanges, pivoting
from implicitdsl.solvers.optimum.dual import DIAGONAL, dual_of
from implicitdsl.solvers.optimum.interior_point import InteriorPoint
from implicitdsl.solvers.optimum.pivoting import Dense
from implicitdsl.solvers.optimum.polish import direct
from implicitdsl.solvers.optimum.quadratic import Optimum, Quadratic, met, residual, weakly_active
from implicitdsl.solvers.optimum.small import fits

D = torch.float64


def problem(n: int, m: int, p: int, batch: int, rank: int | None = None) -> Quadratic:
    """Feasible and bounded: rows C z ≤ d around a point, a box, and P of the given rank (0: a linear program)."""
    g = torch.Generator().manual_seed(n + 10 * m + 100 * p)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=D, generator=g)

    rank = n if rank is None else rank
    L = normal(batch, n, rank)
    C = normal(batch, p + m, n)
    inside = normal(batch, n)
    d = (C @ inside.unsqueeze(-1)).squeeze(-1)
    d[:, p:] += torch.rand(batch, m, dtype=D, generator=g)
    eye = torch.eye(n, dtype=D).expand(batch, n, n)
    C = torch.cat([C, eye, -eye], 1)
    d = torch.cat([d, inside + 3, 3 - inside], 1)
    return Quadratic(L @ L.mT if rank else None, normal(batch, n), C, d, p)


def oracle(qp: Quadratic, i: int) -> tuple[float, np.ndarray]:
    """Optimal value and point by CVXPY."""
    k = qp.equalities
    x = cp.Variable(qp.q.shape[-1])
    C, d = qp.C[i].numpy(), qp.d[i].numpy()
    cost = qp.q[i].numpy() @ x
    if qp.P is not None:
        cost = cost + 0.5 * cp.quad_form(x, cp.psd_wrap(qp.P[i].numpy()))
    rows = [C[k:] @ x <= d[k:]] + ([C[:k] @ x == d[:k]] if k else [])
    value: Any = cp.Problem(cp.Minimize(cost), rows).solve(
        solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
    )
    return float(value), np.asarray(x.value)


@pytest.mark.parametrize(
    "n, m, p, rank",
    [
        (5, 8, 0, None),
        (10, 10, 3, None),
        (6, 12, 0, 0),
        (6, 12, 2, 0),
        (12, 20, 3, 4),
        (12, 3, 0, 4),
        (30, 40, 5, None),
    ],
)
@pytest.mark.parametrize("solver", [InteriorPoint(), Dense()], ids=["interior", "dense"])
def test_against_cvxpy(solver: InteriorPoint | Dense, n: int, m: int, p: int, rank: int | None) -> None:
    qp = problem(n, m, p, 3, rank)
    found = solver.solve(qp)
    assert (found.status == Outcome.CONVERGED).all()
    assert (residual(qp, found.z, found.y) < 1e-9).all()
    for i in range(3):
        value, z = oracle(qp, i)
        mine = found.z[i]
        cost = float(qp.q[i] @ mine + 0.5 * mine @ qp.apply_P(found.z)[i])
        assert cost == pytest.approx(value, abs=1e-7)
        if rank is None:
            np.testing.assert_allclose(mine.numpy(), z, atol=1e-6)


def test_exact_on_a_vertex_and_on_a_face() -> None:
    """min z₀ + z₁ on the unit box: the vertex 0; min z₀: any point of a face, z₀ = 0."""
    eye = torch.eye(2, dtype=D)
    qp = Quadratic(
        None,
        torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=D),
        torch.cat([eye, -eye]),
        torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=D),
        0,
    )
    found = InteriorPoint().solve(qp)
    assert (found.status == Outcome.CONVERGED).all()
    torch.testing.assert_close(found.z[0], torch.zeros(2, dtype=D), atol=1e-14, rtol=0)
    torch.testing.assert_close(found.y[0], torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=D))
    assert abs(float(found.z[1, 0])) < 1e-9


def test_rows_without_solution_are_marked_and_touch_nobody() -> None:
    """One dimension, a ≤ z ≤ b: empty, fine, NaN; then min −z without bound."""
    C = torch.tensor([[1.0], [-1.0]], dtype=D)
    d = torch.tensor([[-1.0, -1.0], [2.0, 1.0], [torch.nan, 1.0]], dtype=D)
    alone = InteriorPoint().solve(Quadratic(torch.eye(1, dtype=D), torch.tensor([-5.0], dtype=D), C, d[1:2], 0))
    found = InteriorPoint().solve(Quadratic(torch.eye(1, dtype=D), torch.tensor([-5.0], dtype=D), C, d, 0))
    assert found.status.tolist() == [Outcome.INFEASIBLE, Outcome.CONVERGED, Outcome.NOT_FINITE]
    torch.testing.assert_close(found.z[1], alone.z[0], rtol=0, atol=0)
    assert float(found.z[1, 0]) == pytest.approx(2.0, abs=1e-12)
    q = torch.tensor([[1.0], [-1.0]], dtype=D)
    open_ended = InteriorPoint().solve(Quadratic(None, q, -torch.ones(1, 1, dtype=D), torch.zeros(1, dtype=D), 0))
    assert open_ended.status.tolist() == [Outcome.CONVERGED, Outcome.UNBOUNDED]


def test_redundant_equalities() -> None:
    """The same hyperplane twice: the projection onto it all the same."""
    C = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.0, 0.0, 0.0]], dtype=D)
    d = torch.tensor([1.0, 2.0, 0.1], dtype=D)
    eye = torch.eye(3, dtype=D)
    found = InteriorPoint().solve(Quadratic(eye, torch.zeros(1, 3, dtype=D), C, d, 2))
    assert found.status.tolist() == [Outcome.CONVERGED]
    torch.testing.assert_close(found.z[0], torch.tensor([0.1, 0.45, 0.45], dtype=D))
    only, _ = direct(Quadratic(eye, torch.zeros(1, 3, dtype=D), C[:2], d[:2], 2))
    assert only.status.tolist() == [Outcome.CONVERGED]
    torch.testing.assert_close(only.z[0], torch.full((3,), 1 / 3, dtype=D))


def test_direct_says_when_there_is_no_solution() -> None:
    """Contradictory equalities, and a singular P whose linear term leaves its range."""
    eye = torch.eye(2, dtype=D)
    C = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=D)
    d = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=D)
    found, _ = direct(Quadratic(eye, torch.zeros(2, dtype=D), C, d, 2))
    assert found.status[0] == Outcome.CONVERGED
    assert found.status[1] != Outcome.CONVERGED
    P = torch.diag(torch.tensor([1.0, 0.0], dtype=D))
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=D)
    free, _ = direct(Quadratic(P, q, C[:0], d[0, :0], 0))
    assert free.status[0] == Outcome.CONVERGED
    assert free.status[1] == Outcome.UNBOUNDED


def test_badly_scaled_rows() -> None:
    """Rows that differ by 1e8 in size say the same."""
    qp = problem(6, 10, 2, 2)
    scale = torch.logspace(-4, 4, qp.d.shape[-1], dtype=D)
    scaled = Quadratic(qp.P, qp.q, qp.C * scale.unsqueeze(-1), qp.d * scale, 2)
    found, plain = InteriorPoint().solve(scaled), InteriorPoint().solve(qp)
    assert (found.status == Outcome.CONVERGED).all()
    torch.testing.assert_close(found.z, plain.z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.y * scale, plain.y, rtol=1e-7, atol=1e-7)


def test_weakly_active_rows_are_counted() -> None:
    """The unconstrained minimiser lies exactly on a constraint."""
    eye = torch.eye(2, dtype=D)
    q = torch.tensor([[-1.0, 0.0], [-2.0, 0.0]], dtype=D)
    qp = Quadratic(eye, q, eye[:1], torch.ones(1, dtype=D), 0)
    found = InteriorPoint().solve(qp)
    assert found.status.tolist() == [0, 0]
    assert weakly_active(qp, found.z, found.y).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(8, 8, 0, 5), (30, 30, 4, 6), (20, 50, 0, 6), (5, 40, 1, 4)])
def test_pivoting_and_interior_point_agree(shape: tuple[int, int, int, int]) -> None:
    qp = problem(*shape)
    mine, other = Dense().solve(qp), InteriorPoint().solve(qp)
    assert (mine.status == Outcome.CONVERGED).all()
    torch.testing.assert_close(mine.z, other.z, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(mine.y, other.y, rtol=1e-8, atol=1e-9)
    assert torch.equal(mine.active, other.active)


def test_pivoting_with_shared_matrices_and_failed_rows() -> None:
    """P and C shared by the batch; a row without solution and one with NaN among good ones."""
    eye = torch.eye(3, dtype=D)
    C = torch.cat([eye, -eye])
    d = torch.tensor([[1.0] * 3 + [0.0] * 3, [-1.0] * 3 + [0.0] * 3, [torch.nan] * 6, [2.0] * 3 + [1.0] * 3], dtype=D)
    q = torch.tensor([-3.0, 0.5, -0.25], dtype=D)
    found = Dense().solve(Quadratic(eye, q, C, d, 0))
    assert found.status.tolist() == [Outcome.CONVERGED, Outcome.INFEASIBLE, Outcome.NOT_FINITE, Outcome.CONVERGED]
    expected = torch.tensor([[1.0, 0.0, 0.25], [2.0, -0.5, 0.25]], dtype=D)
    torch.testing.assert_close(found.z[[0, 3]], expected, rtol=0, atol=1e-12)


def by_pivoting(qp: Quadratic, monkeypatch: pytest.MonkeyPatch) -> Optimum:
    """The solution of `Dense` without help from the interior point."""
    monkeypatch.setattr(InteriorPoint, "solve", lambda *_: pytest.fail("the interior point was asked"))
    return Dense().solve(qp)


def test_what_samples_share_is_eliminated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared matrices, P singular but for the equalities: as each sample alone, and K [u; v] = [f; g] is solved."""
    each = problem(12, 4, 4, 5, 9)
    P, C = each.P, each.C
    assert P is not None
    expected = [
        InteriorPoint().solve(Quadratic(P[0], q[None], C[0], d[None], 4)) for q, d in zip(each.q, each.d, strict=True)
    ]
    solvable = torch.tensor([bool((e.status == Outcome.CONVERGED).all()) for e in expected])
    assert solvable.sum() >= 2
    qp = Quadratic(P[0], each.q[solvable], C[0], each.d[solvable], 4)
    found = by_pivoting(qp, monkeypatch)
    assert (found.status == Outcome.CONVERGED).all()
    for z, e in zip(found.z, [e for e, ok in zip(expected, solvable, strict=True) if ok], strict=True):
        torch.testing.assert_close(z, e.z[0], rtol=1e-8, atol=1e-8)
    f, g = torch.randn_like(found.z), torch.randn_like(found.y)
    u, v = found.factor.solve(f, g)
    torch.testing.assert_close(u @ qp.P + v @ qp.C, f, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((u @ qp.C.mT)[found.active], g[found.active], rtol=1e-9, atol=1e-9)
    assert (v[~found.active] == 0).all()


def test_the_factor_has_the_samples_that_were_left_out() -> None:
    """Of many small systems those that are done are left out of further rounds; K [u; v] = [f; g] is solved for all."""
    qp = problem(10, 10, 0, 64)
    assert qp.P is not None
    qp = qp._replace(P=qp.P + torch.eye(10, dtype=D), C=qp.C[:, :10], d=qp.d[:, :10])
    found = Dense().solve(qp)
    assert len(found.iterations.unique()) > 2
    assert found.factor.active is not None
    f, g = torch.randn_like(found.z), torch.randn_like(found.y)
    u, v = found.factor.solve(f, g)
    sides = qp.apply_P(u) + qp.pull_C(v)
    torch.testing.assert_close(sides, f, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(qp.apply_C(u)[found.active], g[found.active], rtol=1e-9, atol=1e-9)
    assert (v[~found.active] == 0).all()


@pytest.mark.parametrize("m", [24, 30])
def test_exchanges_that_go_in_circles_start_again_from_interior_points(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these samples go in circles; for m > n the matrix of the dual is singular, too."""
    g = torch.Generator().manual_seed(84)
    n, batch = 10, 64
    L = torch.randn(batch, n, n, dtype=D, generator=g) / n**0.5
    q, C = torch.randn(batch, n, dtype=D, generator=g), torch.randn(batch, m, n, dtype=D, generator=g)
    inside = (C @ torch.randn(batch, n, 1, dtype=D, generator=g)).squeeze(-1)
    d = inside + torch.rand(batch, m, dtype=D, generator=g)
    qp = Quadratic(L @ L.mT + 0.1 * torch.eye(n, dtype=D), q, C, d, 0)
    with monkeypatch.context() as patch:
        patch.setattr(complementary, "PASSES", ())
        dual = dual_of(qp)
        assert dual is not None
        assert (complementary.complement(dual.S, -dual.reduced(-q, d)[2]).rounds == 0).any()
    found = by_pivoting(qp, monkeypatch)
    assert (found.status == Outcome.CONVERGED).all()
    assert (residual(qp, found.z, found.y) < 1e-10).all()


def test_only_the_worst_rows_are_exchanged_where_all_go_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 ≤ y ⊥ S y + r ≥ 0 of low rank and wide spectrum: every sample ends; some do not if all rows are exchanged."""
    g = torch.Generator().manual_seed(4)
    batch, n, m = 32, 20, 34
    Y = torch.randn(batch, n, m, dtype=D, generator=g) * torch.logspace(-1, 0.5, n, dtype=D).unsqueeze(-1)
    S, r = Y.mT @ Y, torch.rand(batch, m, dtype=D, generator=g)
    r = r + (Y.mT @ torch.randn(batch, n, 1, dtype=D, generator=g)).squeeze(-1)
    monkeypatch.setattr(complementary, "PASSES", ())
    monkeypatch.setattr(exchanges, "ROUNDS", exchanges.LONG_ROUNDS)
    y, active, rounds, *_ = complementary.complement(S, r)
    s = (S @ y.unsqueeze(-1)).squeeze(-1) + r
    assert (rounds > 0).all()
    assert (y[~active] == 0).all()
    assert min(y.min(), s.min()) > -1e-9
    assert (s * y).max() < 1e-9
    monkeypatch.setattr(exchanges, "LARGE", -torch.inf)
    assert (complementary.complement(S, r).rounds == 0).any()


def test_a_diagonal_objective_needs_no_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared diagonal P of many unknowns: the same point as with a dense factor."""
    g = torch.Generator().manual_seed(3)
    n, m = DIAGONAL + 2, 30
    P = torch.diag(torch.rand(n, dtype=D, generator=g) + 0.1)
    C, q = torch.randn(m, n, dtype=D, generator=g), torch.randn(4, n, dtype=D, generator=g)
    qp = Quadratic(P, q, C, torch.rand(4, m, dtype=D, generator=g), 3)
    found = by_pivoting(qp, monkeypatch)
    assert found.factor.dual.root.L.ndim == 1
    assert (residual(qp, found.z, found.y) < 1e-12).all()


@pytest.mark.parametrize("shared", [False, True])
def test_walls_and_gathered_rows_find_the_same(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some samples start at the solution, one has no slack and no multiplier in a row."""
    g = torch.Generator().manual_seed(7)
    batch, m = 40, 12
    Y = torch.randn(*(() if shared else (batch,)), 15, m, dtype=D, generator=g)
    S, r = Y.mT @ Y, 3 * torch.randn(batch, m, dtype=D, generator=g)
    r[:3] = r[:3].abs()
    r[3], r[3, 0] = 1.0, 0.0
    by_walls = complementary.complement(S, r)
    for module in (exchanges, dual):
        monkeypatch.setattr(module, "GATHERED", 1)
    by_gathering = complementary.complement(S, r)
    assert (by_walls.rounds == by_gathering.rounds).all()
    assert (by_walls.active == by_gathering.active).all()
    torch.testing.assert_close(by_walls.y, by_gathering.y, rtol=1e-10, atol=1e-12)
    slack = torch.einsum("...ij,bj->bi" if shared else "bij,bj->bi", S, by_walls.y) + r
    assert torch.minimum(by_walls.y, slack).abs().max() < 1e-10
    assert not by_walls.active[:4].any()


def test_a_residual_that_is_absolutely_small_is_not_scaled() -> None:
    P, C = torch.eye(2, dtype=D), torch.tensor([[1.0, 0.0]], dtype=D)
    problem = Quadratic(P, torch.tensor([[-1.0, -2.0]], dtype=D), C, torch.tensor([[0.5]], dtype=D), 0)
    z, y = torch.tensor([[0.5, 2.0 + 1e-12]], dtype=D), torch.tensor([[0.5]], dtype=D)
    found, every = met(problem, z, y, 1e-9)
    assert every
    torch.testing.assert_close(found, torch.tensor([1e-12], dtype=D), rtol=1e-3, atol=0.0)
    assert (found >= residual(problem, z, y)).all()
    far, every = met(problem, z + 1.0, y, 1e-9)
    assert not every
    torch.testing.assert_close(far, residual(problem, z + 1.0, y))
    large = problem._replace(q=1e9 * problem.q, d=1e9 * problem.d)
    relative, every = met(large, 1e9 * z, 1e9 * y, 1e-9)
    assert every
    torch.testing.assert_close(relative, residual(large, 1e9 * z, 1e9 * y))
    assert not met(problem, z * torch.nan, y, 1e-9)[1]


@pytest.mark.parametrize("n, m", [(6, 6), (8, 16), (5, 14), (12, 1)])
def test_small_programs_on_the_host_are_solved_as_others_are(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows twice and three times, samples that are infeasible, not finite or run in circles, and a guess."""
    torch.manual_seed(n)
    L, G = torch.randn(40, n, n, dtype=D), torch.randn(40, m, n, dtype=D)
    h = torch.rand(40, m, dtype=D)
    G[:10, -1], h[:10, -1] = G[:10, 0], h[:10, 0]
    G[10:14, -1], h[10:14, -1] = -G[10:14, 0], -h[10:14, 0] - (1.0 if m > 1 else 0.0)
    G[14, 0], h[14, 0] = 0.0, 1.0
    h[15, 0], G[16, 0, 0] = torch.nan, torch.nan
    qp = Quadratic(L @ L.mT + 0.01 * torch.eye(n, dtype=D), torch.randn(40, n, dtype=D), G, h, 0)
    assert fits(qp)
    for guess in (None, torch.randn(40, n, dtype=D)):
        host = Dense().solve(qp, guess)
        with monkeypatch.context() as patch:
            patch.setattr(pivoting, "fits", lambda _: False)
            other = Dense().solve(qp, guess)
        assert (host.status == other.status).all()
        assert host.status[15] == host.status[16] == int(Outcome.NOT_FINITE)
        assert (host.status[10:14] == (Outcome.CONVERGED if m == 1 else int(Outcome.INFEASIBLE))).all()
        good = host.status == Outcome.CONVERGED
        assert good.sum() >= 34
        assert (host.active[17:] == other.active[17:]).all()
        torch.testing.assert_close(host.z[good], other.z[good], rtol=1e-8, atol=1e-8)
        residuals = residual(qp, host.z, host.y)[good]
        assert (residuals <= 1e-9).all()
