"""Total variation by its dual: the primal's optimum; a tuned D denoises where a short network does not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

import implicitdsl as imp

EXAMPLE = Path(__file__).parent.parent.parent / "examples/total_variation/train.py"


def test_the_dual_is_the_primal() -> None:
    example = runpy.run_path(str(EXAMPLE))
    y = example["signals"](2, torch.Generator().manual_seed(0))[0][:, :30]
    text = "layer P(n):\n  given y in R^n\n  const D in R^(n - 1, n)\n"
    text += "  argmin_{z in R^n} 1/2 ||y - z||^2 + 5 ||D z||_1\n"
    D = torch.diff(torch.eye(30, dtype=torch.float64), dim=0)
    primal = imp.compile(text, n=30, D=D)
    dual = imp.compile(EXAMPLE.parent / "denoise.imp", n=30).double()
    dual.D, dual.lam = D, torch.tensor(5.0, dtype=torch.float64)
    torch.testing.assert_close(dual(y), primal(y), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["total variation"] < 45
    assert result["tuned"] < 1.15 * result["total variation"]
    assert result["network"] > result["tuned"]
    assert picture.stat().st_size > 10_000
