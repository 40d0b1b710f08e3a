"""Samples that have no solution, or whose inputs are not finite, leave the others and shared parameters alone."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

D = torch.float64
HEAD = """layer Lost(n):
  given c in positive, low in R^n, high in R^n
  param Q in PD(n), q in R^n
"""
PROGRAMS = {
    "quadratic": "argmin_{z in R^n} 1/2 c z^T Q z + q^T z subject to low <= z <= high, c q[0] z[0] + z[1] <= 3",
    "smooth": "argmin_{z in R^n} 1/2 c z^T Q z + q^T z + sum(exp(z)) subject to low <= z <= c high",
    "mixed": "argmin_{z in PSD(n)} c tr(Q z) + q^T z q - logdet(z) subject to low[0] <= z[0, 1] <= high[0]",
    "conic": "argmin_{z in PSD(n)} c tr(Q z) + q^T z q subject to diag(z) = c, low[0] <= z[0, 1], z[0, 1] <= high[0]",
}
NAN = float("nan")


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
@pytest.mark.parametrize("policy", ["warn", "nan"])
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_shared_parameters_get_the_gradient_of_the_good_samples(name: str, policy: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(f"{HEAD}  {PROGRAMS[name]}\n  using on_failure={policy}", n=2).double()
    with torch.no_grad():
        layer.q.fill_(0.5)
    c = torch.tensor([1.0, 2.0, 1.5, NAN], dtype=D)
    low = torch.tensor([[-0.3, -1.0], [-1.0, -1.0], [2.0, 2.0], [-1.0, -1.0]], dtype=D)
    high = torch.ones(4, 2, dtype=D)

    def gradients(*rows: int) -> tuple[torch.Tensor, ...]:
        inputs = [t[list(rows)].requires_grad_() for t in (c, low, high)]
        z = layer(*inputs).flatten(1)
        good = [i for i, r in enumerate(rows) if r < 2]
        shared = torch.autograd.grad(z[good].square().sum(), list(layer.parameters()))
        return z, *shared, *torch.autograd.grad(layer(*inputs).sum(), inputs)

    z, *found = gradients(0, 1, 2, 3)
    clean, *expected = gradients(0, 1)
    torch.testing.assert_close(z[:2], clean, rtol=1e-9, atol=1e-9)
    assert bool(z[2:].isnan().all()) == (policy == "nan")
    for mine, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    for mine, theirs in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(mine[:2], theirs, rtol=1e-7, atol=1e-9)
        assert bool(mine[2:].isnan().all()) if policy == "nan" else bool((mine[2:] == 0).all())


def test_a_lost_sample_beside_one_without_active_rows() -> None:
    """Gradients of the solved samples, inside, at a bound and at both, are those without the infeasible one."""
    text = "given q in R^2, h in R\nparam w in R^2\nargmin_{z in R^2} ||z - w * q||^2 subject to sum(z) <= h, z >= 0"
    layer = imp.compile(text).double()
    layer.w = torch.tensor([1.0, 0.5], dtype=D)
    q = torch.tensor([[0.25, 0.5], [-1.0, 0.5], [3.0, -1.0], [1.0, 1.0]], dtype=D)
    h = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=D)
    expected = torch.autograd.grad(layer(q[:3], h[:3]).square().sum(), layer.w)[0]
    with pytest.warns(imp.ConvergenceWarning, match="1 of 4"):
        z = layer(q, h)
    found = torch.autograd.grad(z[:3].square().sum(), layer.w)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_an_unbounded_sample_leaves_shared_parameters_alone() -> None:
    """Its point is far away, and a derivative there would drown the others'."""
    text = "given s in R\nparam w in R = 0.7\nargmin_{z in R^3} -sum(log(z)) - w s sum(z)"
    layer = imp.compile(text).double()
    s = torch.tensor([-1.0, 2.0, -0.5], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match="falls without bound"):
        (found,) = torch.autograd.grad(layer(s).sum(), layer.w)
    (expected,) = torch.autograd.grad(layer(s[[0, 2]]).sum(), layer.w)
    torch.testing.assert_close(found, expected)


EMPTY = {
    "quadratic": "argmin_{z in R^n} ||z - q||^2 + (w^T z)^2 subject to c: w^T z <= 1",
    "equalities": "argmin_{z in R^n} ||z - q||^2 + (w^T z)^2 subject to c: w^T z = 1",
    "projection": "argmin_{z in simplex(n)} sum(w^2 * (z - q)^2) subject to c: z <= 0.6",
    "ball": "argmin_{z in R^n} ||z - sum(w) q||^2 subject to c: ||z|| <= 1",
    "semidefinite": "argmin_{X in PSD(n)} ||X - w q^T - q w^T||_F^2",
    "entropy": "argmin_{z in simplex(n)} sum(z * log(z)) - q^T z subject to c: w^T z <= 1",
    "smooth": "argmin_{z in R^n} logsumexp(z + w) + ||z - q||^2 subject to c: z <= 1",
    "conic": "argmin_{X in PSD(n)} tr(X) + 2 q^T X w subject to c: diag(X) = 1",
    "norms": "argmin_{z in R^n} ||z - q|| + ||z - w||^2 subject to c: w^T z <= 1",
    "mixed": "argmin_{X in PSD(n)} tr(X) + q^T X q + w^T X w - logdet(X) subject to c: diag(X) <= 1",
    "nonconvex": "argmin_{z in R^n} ||z - q||^2 + sum(sin(w * z)) subject to c: ||z||^2 = 1\n  using nlp()",
}


@pytest.mark.parametrize("lead", [(0,), (2, 0)])
@pytest.mark.parametrize("name", list(EMPTY))
def test_an_empty_batch(name: str, lead: tuple[int, ...]) -> None:
    dual = ", dual(c)" if " c: " in EMPTY[name] else ""
    unknown = "X" if "{X" in EMPTY[name] else "z"
    layer = imp.compile(
        f"layer Empty(n):\n  given q in R^n\n  param w in R^n = ones\n  {EMPTY[name]}\n  return {unknown}{dual}"
    )
    q = torch.randn(*lead, 3, requires_grad=True)
    solution = layer.solve(q)
    value = solution.value if isinstance(solution.value, tuple) else (solution.value,)
    assert all(t.shape[: len(lead)] == lead for t in value)
    assert solution.report.converged.shape == lead
    total = torch.stack([t.square().sum() for t in value]).sum()
    q_grad, w_grad = torch.autograd.grad(total, (q, layer.w), create_graph=True)
    assert q_grad.shape == q.shape
    assert not w_grad.any()


@pytest.mark.parametrize("a", [0.0, 1e-30, 1e-15])
@pytest.mark.parametrize("rest", ["z >= -5", "sum(z) = 1"])
def test_a_vanishing_row_that_cannot_hold(rest: str, a: float) -> None:
    """0 z ≤ −1: no multiplier is so large, and no unit of z, that it could be taken for a solution."""
    text = "layer Row(n):\n  given h in R^n, a in R^n\n  argmin_{z in R^n} ||z - h||^2 + (h^T z)^2"
    layer = imp.compile(f"{text} subject to a^T z <= -1, z <= 3, {rest}")
    h, rows = torch.tensor([1.0, -2.0], dtype=D), torch.tensor([[a, 0.0], [1.0, 0.0]], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        assert layer.solve(h, rows).report.converged.tolist() == [False, True]
