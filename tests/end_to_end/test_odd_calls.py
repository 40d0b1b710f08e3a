"""Calls that a user makes rarely: an empty batch, another default dtype, equations that have no solution."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import implicitdsl as imp

TANH = "layer L(n):\n given x in R^n\n param W in SpectralBall(n, 0.9)\n find z in R^n such that z = tanh(W z + x)\n {}"
METHODS = ("picard", "anderson", "newton", "broyden", "newton_krylov", "levenberg_marquardt", "chord")
USING = ("", *(f"using {m}" for m in METHODS))


@pytest.fixture
def double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("lead", [(0,), (2, 0)])
@pytest.mark.parametrize("using", USING)
def test_an_empty_batch_passes_through(using: str, lead: tuple[int, ...]) -> None:
    layer = imp.compile(TANH.format(using), n=3)
    x = torch.randn(*lead, 3, requires_grad=True)
    z = layer(x)
    assert z.shape == x.shape
    z.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
    report = layer.solve(x).report
    assert report.converged.shape == lead
    assert "0 of 0 converged" in repr(report)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("using", USING)
def test_a_float32_layer_stays_float32_where_the_default_is_float64(using: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH.format(using), n=6).float()
    x = torch.randn(4, 6, dtype=torch.float32, requires_grad=True)
    z = layer(x)
    assert z.dtype is torch.float32
    z.sum().backward()
    assert (z - torch.tanh(z @ layer.W.mT + x)).abs().max() < 1e-5


def test_an_affine_equation_without_solution_is_reported() -> None:
    layer = imp.compile("layer L:\n given a in R, x in R\n find z in R such that a z = x")
    a, x = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 1.0])
    with pytest.warns(imp.ConvergenceWarning, match="1 of 3 samples did not converge"):
        solution = layer.solve(a, x)
    assert solution.report.converged.tolist() == [False, True, True]
    assert solution.report.residual.isfinite().all()
    assert solution.value[2] == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "find",
    [
        "find z in R^2 such that 1.2 z + sum(z) concat(0.3 ones(1), [0.1]) = x",
        "where E(z) = 1/2 z^T z + 0.2 sum(softmax(z)[0:1])\n find z in R^2 such that grad(E(z), z) = x",
        "find z(t) in R^2 for t in [0, 1] such that dz/dt = z * sin(concat(0.3 ones(1), [0.1])), z(0) = x",
    ],
    ids=["affine", "root", "evolution"],
)
def test_constants_take_the_dtype_of_the_inputs(find: str, dtype: torch.dtype) -> None:
    layer = imp.compile(f"layer L():\n given x in R^2\n {find}")
    x = torch.tensor([[0.1, 0.2], [0.3, -0.4]], dtype=dtype, requires_grad=True)
    z = layer(x)
    z.sum().backward()
    assert z.dtype == dtype
    torch.testing.assert_close(z[0], layer(x[0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("find z in R such that z = cos(z)", 0.7390851),
        ("find z(t) in R for t in [0, 1] such that dz/dt = -z, z(0) = 1", 0.3678794),
        ("find z(t) in R for t in [0, 1] such that dz/dt = -z^2, z(0) = 1", 0.5),
        ("argmin_{x in R^2} ||x||^2 subject to sum(x) = 1", [0.5, 0.5]),
        ("argmin_{x in R^2} sum(exp(x)) - sum(x)", [0.0, 0.0]),
        ("argmin_{X in PSD(2)} tr(X) subject to diag(X) = 1", [[1.0, 0.0], [0.0, 1.0]]),
        ("layer L():\n  where y = 2 ones(2)\n  return y", [2.0, 2.0]),
    ],
    ids=["root", "linear", "evolution", "quadratic", "smooth", "semidefinite", "explicit"],
)
def test_a_layer_without_inputs_has_a_value(text: str, expected: float | list[float]) -> None:
    torch.testing.assert_close(imp.compile(text)(), torch.tensor(expected), rtol=0, atol=1e-4)
