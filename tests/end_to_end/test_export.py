"""torch.export: a layer as a program that is saved, loaded elsewhere, and called with any batch."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

ALONE = "import torch, implicitdsl.backward.implicit, sys"
LOADED = """
x, right = torch.load(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
torch.testing.assert_close(program(x), right, rtol=0, atol=1e-12)
"""
TANH = """layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
"""
AFFINE = TANH.replace("SpectralBall(n, 0.9)", "R^(n, n)").replace("tanh(W z + x)", "W z + x")
CUBIC = "layer Cubic(n):\n  given x in [0, 1]^n\n  find z in [-1, 1]^n such that z^3 + z = x\n"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def exported(text: str, path: Path) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The layer, and what is left of it after a file, for any batch of at least two."""
    torch.manual_seed(0)
    layer = imp.compile(text, n=4).double()
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(layer, (torch.rand(3, 4, dtype=torch.float64),), dynamic_shapes=((batch,),))
    torch.export.save(program, path)
    return layer, torch.export.load(path).module()


def check(text: str, path: Path) -> tuple[nn.Module, Tensor]:
    layer, program = exported(text, path)
    for size in (3, 7, 2):
        x = torch.rand(size, 4, dtype=torch.float64)
        torch.testing.assert_close(program(x), layer(x), rtol=0, atol=1e-12)
    return layer, x


def test_an_affine_layer_goes_through_a_file_with_any_batch(tmp_path: Path) -> None:
    check(AFFINE, tmp_path / "affine.pt2")


def test_gradients_of_a_program_are_refused(tmp_path: Path) -> None:
    _, program = exported(AFFINE, tmp_path / "affine.pt2")
    z = program(torch.rand(3, 4, dtype=torch.float64, requires_grad=True))
    with pytest.raises(RuntimeError, match="no autograd formula"):
        z.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [TANH, TANH + "  using newton\n", TANH + "  using anderson, backward gmres\n", CUBIC],
    ids=["ladder", "newton", "anderson", "bisection"],
)
def test_loops_go_through_a_file_with_any_batch(text: str, tmp_path: Path) -> None:
    check(text, tmp_path / "loop.pt2")


@pytest.mark.slow
def test_a_program_runs_in_a_process_that_compiles_nothing(tmp_path: Path) -> None:
    layer, x = check(TANH, tmp_path / "tanh.pt2")
    torch.save((x, layer(x).detach()), tmp_path / "pair.pt")
    command = [sys.executable, "-W", "ignore", "-c", ALONE + "\n" + LOADED, "tanh.pt2", "pair.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_failures_are_announced_by_a_loaded_program(tmp_path: Path) -> None:
    text = "layer L():\n  given a in R\n  find z in R such that z = exp(z) + a\n  using newton(max_iter=20)\n"
    layer = imp.compile(text).double()
    good = torch.tensor([-2.0, -3.0], dtype=torch.float64)
    program = torch.export.export(layer, (good,))
    torch.export.save(program, tmp_path / "failing.pt2")
    loaded = torch.export.load(tmp_path / "failing.pt2").module()
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        torch.testing.assert_close(loaded(good), layer(good), rtol=0, atol=1e-12)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        loaded(torch.tensor([-2.0, 3.0], dtype=torch.float64))
