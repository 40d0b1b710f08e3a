"""Bisection: known roots, choice of the root by its interval, infinite ends, wrong brackets, entries on their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.bisection import Bisection
from implicitdsl.solvers.problem import RootProblem
from implicitdsl.solvers.verdict import Solved

F64 = torch.float64
CONVERGED = Outcome.CONVERGED


SLOPES = {"known": False}


@pytest.fixture(autouse=True, params=[False, True], ids=["values", "slopes"])
def with_slopes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs without slopes and with them, which lets Newton steps come first."""
    monkeypatch.setitem(SLOPES, "known", request.param)


def slope(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, a: torch.func.vjp(lambda z: f(z, a), z)[1](torch.ones_like(z))[0]


def run(
    f: Callable[[Tensor, Tensor], Tensor],
    a: Tensor | list[float],
    lower: float | Tensor | None = None,
    upper: float | Tensor | None = None,
    start: float = 0.0,
) -> Solved:
    """A row for each number in a, or a row of a."""
    a = torch.tensor(a, dtype=F64).unsqueeze(1) if isinstance(a, list) else a
    known = slope(f) if SLOPES["known"] else None
    problem = RootProblem(residual=f, jacobian=known, ranks=(1,), diagonal=True, lower=lower, upper=upper)
    return Bisection().solve(problem, torch.full_like(a, start), (a,))


def outcomes(solved: Solved) -> list[Outcome]:
    return [Outcome(s) for s in solved.status.tolist()]


def square(z: Tensor, a: Tensor) -> Tensor:
    return z * z - a


@pytest.mark.parametrize("start", [0.0, 0.7, 1.0, 2.0, 100.0])
def test_the_interval_picks_the_branch(start: float) -> None:
    a = [0.0, 0.5, 1.0, 2.0, 4.0]
    for sign, lower, upper in ((1, 0.0, 2.0), (-1, -2.0, 0.0)):
        solved = run(square, a, lower, upper, start)
        assert outcomes(solved) == [CONVERGED] * 5
        assert (solved.z - sign * torch.tensor(a, dtype=F64).sqrt().unsqueeze(1)).abs().max() < 1e-12


def test_a_wrong_bracket_is_reported_at_once() -> None:
    solved = run(square, [5.0, 2.0, -1.0], 0.0, 2.0, 1.0)
    assert outcomes(solved) == [Outcome.NO_SIGN_CHANGE, CONVERGED, Outcome.NO_SIGN_CHANGE]
    assert solved.iterations[[0, 2]].tolist() == [0, 0]
    assert solved.converged.tolist() == [False, True, False]
    assert "same sign" in Outcome.NO_SIGN_CHANGE.advice


def test_an_infinite_end_is_moved_to_a_sign_change() -> None:
    a = [0.5, 1.0, 1e6, 1e20]
    solved = run(square, a, lower=0.0, start=1.0)
    exact = torch.tensor(a, dtype=F64).sqrt().unsqueeze(1)
    assert outcomes(solved) == [CONVERGED] * 4
    assert ((solved.z - exact).abs() < 1e-11 * exact).all()
    assert solved.iterations.max() < 40


def test_two_infinite_ends() -> None:
    a = [1e-2, 0.5, 1.0, 1e20]
    solved = run(lambda z, a: torch.exp(z) - a, a)
    assert outcomes(solved) == [CONVERGED] * 4
    assert (solved.z - torch.tensor(a, dtype=F64).log().unsqueeze(1)).abs().max() < 1e-10


def test_no_root_on_the_line_is_reported() -> None:
    assert outcomes(run(lambda z, a: torch.exp(z) - a, [-1.0])) == [Outcome.NO_SIGN_CHANGE]
    assert outcomes(run(lambda z, a: z * z + a, [1.0])) == [Outcome.NO_SIGN_CHANGE]


def test_a_residual_that_does_not_exist_at_an_end() -> None:
    solved = run(lambda z, a: z * torch.log(z) - a, [0.5, 1.0], 0.0, 4.0)  # 0·log 0 is NaN
    assert outcomes(solved) == [CONVERGED] * 2
    assert (solved.z * solved.z.log() - torch.tensor([[0.5], [1.0]], dtype=F64)).abs().max() < 1e-12
    solved = run(lambda z, a: torch.sqrt(z - 3) - a, [1.0, 2.0, 30.0], start=4.0)
    assert outcomes(solved) == [CONVERGED] * 3
    assert solved.z.flatten().tolist() == pytest.approx([4.0, 7.0, 903.0], rel=1e-10)


def test_a_root_at_an_end_yields_to_one_inside() -> None:
    solved = run(lambda z, a: z * z - a * z, [1.0, 1.9], lower=0.0, start=1.0)
    assert solved.z.flatten().tolist() == pytest.approx([1.0, 1.9], abs=1e-12)


@pytest.mark.parametrize("power", [3, 5])
def test_roots_of_odd_multiplicity_are_singular(power: int) -> None:
    assert outcomes(run(lambda z, a: z**power - a, [0.0, 1.0], -1.0, 2.0, 1.3)) == [Outcome.SINGULAR, CONVERGED]


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6])
def test_a_simple_root_of_any_scale_is_not_singular(scale: float) -> None:
    a = [0.3, 1.1, 3.0, 3.99]
    solved = run(lambda z, a: scale * (z * z - a), a, 0.0, 2.0, 1.0)
    assert outcomes(solved) == [CONVERGED] * 4
    error = solved.z - torch.tensor(a, dtype=F64).sqrt().unsqueeze(1)
    assert error.abs().max() < 1e-11 / min(scale, 1.0)


def test_poles_and_jumps_are_no_roots() -> None:
    assert not run(lambda z, a: 1 / (z - a), [0.3], -1.0, 2.0).converged.any()
    assert not run(lambda z, a: torch.sign(z - a) + 0.1, [0.3], -1.0, 2.0).converged.any()


def test_a_steep_function_on_a_wide_interval() -> None:
    solved = run(lambda z, a: 5 * torch.tanh(z - a), [0.3, -77.0], -1e9, 2e9)
    assert outcomes(solved) == [CONVERGED] * 2
    assert (solved.z - torch.tensor([[0.3], [-77.0]], dtype=F64)).abs().max() < 1e-8


def test_it_is_faster_than_halving() -> None:
    solved = run(lambda z, a: torch.cos(z) - a * z, [1.0, 0.3, 5.0], 0.0, 1.5, 0.7)
    assert outcomes(solved) == [CONVERGED] * 3
    assert solved.iterations.max() <= 8


def test_entries_have_brackets_of_their_own() -> None:
    a = torch.tensor([[1.0, 8.0, -27.0], [-1e-3, 0.125, 5.0]], dtype=F64)
    lower, upper = torch.tensor([-2.0, 0.0, -torch.inf], dtype=F64), torch.tensor([2.0, 3.0, torch.inf], dtype=F64)
    solved = run(lambda z, a: z**3 - a, a, lower, upper)
    assert outcomes(solved) == [CONVERGED] * 2
    assert (solved.z - a.sign() * a.abs() ** (1 / 3)).abs().max() < 1e-11


def test_a_nan_row_leaves_alone() -> None:
    a = torch.tensor([[1.0, 3.0], [torch.nan, 1.0], [0.25, 9.0]], dtype=F64)
    solved = run(square, a, lower=0.0, start=1.0)
    assert outcomes(solved) == [CONVERGED, Outcome.NOT_FINITE, CONVERGED]
    clean = run(square, a[[0, 2]], lower=0.0, start=1.0)
    assert torch.equal(solved.z[[0, 2]], clean.z)


def test_a_start_at_the_root_is_free() -> None:
    assert run(square, [2.25], 0.0, 2.0, 1.5).iterations.item() == 0


def test_float32() -> None:
    a = torch.linspace(0.1, 3.9, 50).view(5, 10)
    problem = RootProblem(residual=square, ranks=(1,), diagonal=True, lower=0.0, upper=2.0)
    solved = Bisection().solve(problem, torch.ones_like(a), (a,))
    assert outcomes(solved) == [CONVERGED] * 5
    assert solved.z.dtype == torch.float32
    assert (solved.z - a.sqrt()).abs().max() < 3e-6


def test_systems_are_refused() -> None:
    problem = RootProblem(residual=lambda z, a: z.flip(-1) - a, ranks=(1,))
    with pytest.raises(ValueError, match="one unknown each"):
        Bisection().solve(problem, torch.zeros(1, 2), (torch.zeros(1, 2),))


def test_newton_steps_come_first_and_stay_in_the_bracket() -> None:
    seen: list[Tensor] = []

    def cubic(z: Tensor, a: Tensor) -> Tensor:
        seen.append(z)
        return z**3 - 2 * z + a  # from 0, plain Newton steps run between 0 and 1 for ever at a = 2

    a = torch.linspace(1.5, 2.5, 40, dtype=F64).view(4, 10)
    problem = RootProblem(
        residual=cubic, jacobian=lambda z, a: 3 * z * z - 2, ranks=(1,), diagonal=True, lower=-3.0, upper=0.9
    )
    solved = Bisection().solve(problem, torch.zeros_like(a), (a,))
    assert solved.all_converged()
    assert cubic(solved.z, a).abs().max() < 1e-14
    assert int(solved.iterations.max()) <= 10
    assert all(bool(((z >= -3) & (z <= 0.9)).all()) for z in seen)


def test_rows_that_newton_steps_do_not_settle_start_anew() -> None:
    def cusp(z: Tensor, a: Tensor) -> Tensor:
        return torch.sign(z - a) * (z - a).abs() ** 0.5  # Newton steps jump to the other side and as far again

    a = torch.tensor([[0.3], [-0.21]], dtype=F64)
    problem = RootProblem(residual=cusp, jacobian=slope(cusp), ranks=(1,), diagonal=True, lower=-1.0, upper=1.0)
    solved = Bisection().solve(problem, torch.zeros_like(a), (a,))
    torch.testing.assert_close(solved.z, a, rtol=0, atol=1e-12)
