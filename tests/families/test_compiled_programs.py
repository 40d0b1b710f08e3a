"""Optimisation layers under `torch.compile(fullgraph=True)`: values, gradients and failures as they are eagerly."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp

D = torch.float64
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # torch's own
    pytest.mark.filterwarnings("ignore:.*IMP605:implicitdsl.SpecWarning"),
]

SPECS = {
    "inequalities": "given q in R^n\nparam G in R^(m, n)\nargmin_{z in R^n} ||z||^2 + q^T z subject to G z <= 1",
    "projection": "given q in R^n\nparam w in R^n\nargmin_{z in simplex(n)} ||z - w * q||^2",
    "smooth": "given q in R^n\nparam w in R^n\nargmin_{z in R^n} sum(exp(z)) + ||z - w * q||^2 subject to sum(z) <= -3",
    "ball": "given q in R^n\nparam w in R^n\nargmin_{z in R^n} ||z - w * q||^2 subject to ||z|| <= 1",
    "equalities": "given q in R^n\nparam G in R^(m, n)\nargmin_{z in R^n} ||z||^2 + q^T z subject to G z = 1",
    "entropy": "given q in R^n\nparam G in R^(m, n)\n"
    "argmin_{z in R^n} sum(z * log(z)) + q^T z subject to G z <= 1, sum(z) = 1",
    "cones": "given q in R^n\nparam G in R^(m, n)\n"
    "argmin_{z in R^n} ||z||^2 + q^T z + ||G z|| subject to ||z - q|| <= 2",
    "determinant": "given q in R^n\nparam w in R^n\n"
    "argmin_{X in PSD(n)} tr(X) - logdet(X) + q^T X w subject to tr(X) <= 4",
    "definite": "given q in R^n\nparam w in R^n\nargmin_{X in PSD(n)} ||X - q w^T||_F^2",
    "smoothed": "given q in R^n\nparam w in R^n\nargmin_{z in simplex(n)} (w * q)^T z\nusing backward smoothed()",
    "smoothed smooth": "given q in R^n\nparam w in R^n\nargmin_{z in R^n} sum(exp(z)) + ||z - w * q||^2 "
    "subject to sum(z) <= -3\nusing backward smoothed()",
    "smoothed cones": "given q in R^n\nparam w in R^n\nargmin_{z in R^n} sum(exp(z)) - (w * q)^T z + ||z - 1||\n"
    "using backward smoothed()",
    "smoothed definite": "given q in R^n\nparam w in R^n\nargmin_{X in PSD(n)} ||X - q w^T||_F^2\n"
    "using backward smoothed()",
}
SLOW = ("smoothed cones", "smoothed definite")


def made(text: str, **sizes: Any) -> Any:
    torch.manual_seed(0)
    torch.compiler.reset()
    return imp.compile(text, **sizes).double()


def gradients(run: Any, layer: Any, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    z = run(*leaves)
    found = torch.autograd.grad((z.nan_to_num() * torch.linspace(0.5, 1.5, z.shape[-1], dtype=z.dtype)).sum(),
                                [*leaves, *layer.parameters()])  # fmt: skip
    return z.detach(), list(found)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in SPECS])
def test_programs_are_one_graph(kind: str) -> None:
    """No graph break, and what runs in the graph is what runs eagerly."""
    layer = made(SPECS[kind], n=6, **({"m": 3} if "(m, n)" in SPECS[kind] else {}))
    q = 3 * torch.randn(8, 6, dtype=D)
    z, expected = gradients(layer, layer, q)
    compiled, found = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"), layer, q)
    torch.testing.assert_close(compiled, z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_lost_sample_harms_no_other_in_a_graph() -> None:
    """NaN in one sample, an infeasible other: warned of, NaN by policy, and the shared gradient is that of the rest."""
    text = (
        "given q in R^2, h in R\nparam w in R^2\n"
        "argmin_{z in R^2} ||z - w * q||^2 subject to sum(z) <= h, z >= 0\nusing ipm, on_failure=nan"
    )
    layer = made(text)
    q = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [3.0, 1.0], [0.5, 0.25]], dtype=D)
    h = torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=D)
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.ConvergenceWarning)
        z, expected = gradients(layer, layer, q, h)
        compiled, found = gradients(run, layer, q, h)
    with pytest.warns(imp.ConvergenceWarning, match="2 of 4"):
        run(q, h)
    torch.testing.assert_close(compiled, z, equal_nan=True)
    assert z.isnan().any(-1).tolist() == [False, True, True, False]
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[2].isfinite().all()


@pytest.mark.parametrize("held", ["||z|| <= r", "sum(z) = r, 0 <= z <= 1"], ids=["ball", "rows"])
def test_formulas_announce_lost_samples_from_a_graph(held: str) -> None:
    """No compiler drops the warning, although nothing else needs what it is called with."""
    layer = made(f"given q in R^n, r in R\nargmin_{{z in R^n}} ||z - q||^2 subject to {held}", n=3)
    q, r = torch.ones(2, 3, dtype=D), torch.tensor([1.0, -1.0], dtype=D)
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        z = run(q, r)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        torch.testing.assert_close(z, layer(q, r))
