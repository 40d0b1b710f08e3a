"""Programs that others write with power and exponential cones: CVXPY, gradients, ends of domains, what is marked."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64
TIGHT = {"solver": "CLARABEL", "tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
HALF: Any = 0.5
R3 = "argmin_{x in R^3}"
Case = tuple[str, str, Callable[[Any, Any, Any], tuple[Any, list[Any]]]]


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def max_relu(x: Any, c: Any) -> Any:
    return cp.sum(cp.pos(cp.abs(x - 3 * c) - 0.5))


# objective, constraints; x (3), t and y numbers; c in [0, 1]^3 + 0.2
PROGRAMS: dict[str, Case] = {
    "weighted geometric mean": (
        "argmax_{x in nonneg^3} x[0]^0.2 * x[1]^0.3 * x[2]^0.5 subject to c^T x <= 1", "nlp",
        lambda x, y, c: (cp.Maximize(cp.geo_mean(x, [0.2, 0.3, 0.5])), [c @ x <= 1]),
    ),
    "power cone": (
        "argmin_{x in R^3, y in nonneg} c^T x + y subject to y^0.4 * (x[2] - 1)^0.6 >= |x[0]|, ||x|| <= 3, x[0] >= 0.5",
        "nlp",
        lambda x, y, c: (cp.Minimize(c @ x + y), [cp.PowCone3D(y, x[2] - 1, x[0], 0.4), cp.norm(x) <= 3, x[0] >= 0.5]),
    ),
    "harmonic mean": (
        "argmax_{x in positive^3} 3 / sum(1 / x) subject to c^T x <= 1", "nlp",
        lambda x, y, c: (cp.Maximize(cp.harmonic_mean(x)), [c @ x <= 1]),
    ),
    "power mean": (
        "argmax_{x in nonneg^3} sum(sqrt(x))^2 subject to c^T x <= 1", "nlp",
        lambda x, y, c: (cp.Maximize(cp.pnorm(x, HALF)), [c @ x <= 1]),
    ),
    "power of a sign that nothing tells": (
        f"{R3} sum(x^1.5) - c^T x + x[0] subject to sum(x) <= 1", "nlp",
        lambda x, y, c: (cp.Minimize(cp.sum(cp.power(x, 1.5)) - c @ x + x[0]), [cp.sum(x) <= 1]),
    ),
    "power of a norm": (
        f"{R3} ||x||^1.5 - c^T x", "conic",
        lambda x, y, c: (cp.Minimize(cp.power(cp.norm(x), 1.5) - c @ x), []),
    ),
    "divergence from weights as a bound": (
        "argmin_{x in simplex(3)} c^T x subject to kl: sum(x * log(x * sum(c) / c)) <= 0.1", "nlp",
        lambda x, y, c: (
            cp.Minimize(c @ x), [cp.sum(cp.rel_entr(x, c / c.sum())) <= 0.1, cp.sum(x) == 1],
        ),
    ),
    "insensitive loss": (
        f"{R3} sum(relu(|x - 3 c| - 0.5)) + exp(sum(x)) / 10 + 0.1 ||x||^2", "nlp",
        lambda x, y, c: (
            cp.Minimize(max_relu(x, c) + cp.exp(cp.sum(x)) / 10 + 0.1 * cp.sum_squares(x)), [],
        ),
    ),
    "a domain far from zero": (
        f"{R3} -sum(log(x - 100 c)) - log(100 sum(c) + 4 - sum(x)) + x[0]", "nlp",
        lambda x, y, c: (
            cp.Minimize(-cp.sum(cp.log(x - 100 * c)) - cp.log(100 * c.sum() + 4 - cp.sum(x)) + x[0]), [],
        ),
    ),
    "a domain far from zero over cones": (
        f"{R3} -sum(log(x - 100 c)) + ||x||", "conic",
        lambda x, y, c: (cp.Minimize(-cp.sum(cp.log(x - 100 * c)) + cp.norm(x)), []),
    ),
    "3-norm of nothing": (
        f"{R3} sum(|x - c|^3)^(1/3)", "nlp", lambda x, y, c: (cp.Minimize(cp.pnorm(x - c, 3)), []),
    ),
    "entropy at a corner": (
        "argmax_{x in simplex(3)} -sum(x * log(x)) - c^T x subject to x[0] = 0", "nlp",
        lambda x, y, c: (cp.Maximize(cp.sum(cp.entr(x)) - c @ x), [cp.sum(x) == 1, x[0] == 0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_against_cvxpy(name: str) -> None:
    text, solver, twin = PROGRAMS[name]
    layer = imp.compile(f"layer P:\n  given c in positive^3\n  {text}\n  return x")
    c = 0.2 + uniform(2, 3)
    sol = layer.solve(c)
    assert sol.report.converged.all()
    assert sol.report.solver == solver
    x: Any = cp.Variable(3)
    y = cp.Variable()
    for i in range(2):
        goal, rows = twin(x, y, c[i].numpy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": at these tolerances
            cp.Problem(goal, rows).solve(**TIGHT)
        np.testing.assert_allclose(sol.value[i].numpy(), x.value, atol=2e-4)
    assert torch.autograd.gradcheck(layer, c[:1].requires_grad_(), eps=1e-5, atol=1e-6, fast_mode=True)


def test_idle_unknowns_of_kinks_have_derivatives_of_every_order() -> None:
    """relu(|x − 3 c| − ½) is idle within its tube: what stands for |x − 3 c| there is not unique, x is."""
    text = PROGRAMS["insensitive loss"][0]
    layer = imp.compile(f"layer P:\n  given c in positive^3\n  {text}")
    c = (0.1 + 0.1 * uniform(3)).requires_grad_()
    one = lambda c: layer(c).square().sum()
    assert torch.autograd.gradgradcheck(layer, c, atol=1e-6)
    torch.testing.assert_close(torch.func.jacfwd(one)(c.detach()), torch.func.jacrev(one)(c.detach()))


def test_infinite_slopes_are_no_convergence() -> None:
    """x₀ = 0 leaves √x₀ no derivative, beside which that of the others is no small number."""
    goal = "argmax_{x in nonneg^n} sum(x^(1/3)) + c^T x subject to sum(x) = 1"
    c = uniform(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.ConvergenceWarning)
        sol = imp.compile(f"given c in R^n\n{goal}, x[0] <= 0").solve(c)
    expected = imp.compile(f"given c in R^n\n{goal}")(c[:, 1:])
    right = (sol.value[:, 1:] - expected).abs().amax(-1) < 1e-6
    assert bool((right | ~sol.report.converged).all())


@pytest.mark.parametrize(
    "text, status",
    [
        ("argmin_{x in R^3} sum(exp(x)) subject to logsumexp(x) <= -c, x >= 0", "infeasible"),
        ("argmin_{x in R^3} exp(c x[0]) subject to ||x - 3 ones(3)|| <= 1, x <= 0", "infeasible"),
        ("argmin_{x in R^3} sum(exp(x)) - 2 x[0] + c x[1]", "unbounded"),
        ("argmin_{x in R^3} logsumexp(x) - c x[0] subject to logsumexp(x[1:3]) <= 0", "unbounded"),
    ],
)
def test_why_a_sample_is_lost(text: str, status: str) -> None:
    layer = imp.compile(f"given c in positive\n{text}")
    with pytest.warns(imp.ConvergenceWarning, match="2 of 2"):
        sol = layer.solve(torch.tensor([1.5, 2.0], dtype=D))
    expected = getattr(Outcome, status.upper())
    assert (sol.report.status == int(expected)).all()
