"""A compiled layer among other modules: late dimensions, pickles, autocast, half precision, compile, own solvers."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.ground.methods import Method, Option
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import Solved

BARE = "find z such that z = tanh(W z + x)"
TANH = """layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
"""
NO_ROOT = "layer L():\n  given a in R\n  find z in R such that z = z^2 + a\n"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_layer_without_dimensions_yet_is_copied(copied: callable) -> None:
    twin = copied(imp.compile(BARE))
    assert twin(torch.randn(2, 5)).shape == (2, 5)
    assert twin.W.shape == (5, 5)


def test_state_dict_goes_through_a_file_into_a_fresh_layer() -> None:
    layer = imp.compile(TANH, n=4)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    twin = imp.compile(TANH, n=4)
    twin.load_state_dict(torch.load(file))
    x = torch.randn(3, 4)
    assert torch.equal(layer(x), twin(x))


def test_autocast_solves_in_the_parameters_precision() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), imp.compile(TANH, n=4), nn.Linear(4, 2))
    x = torch.randn(3, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    y.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    torch.testing.assert_close(y.float(), net(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH, n=4)
    x = torch.randn(3, 4)
    expected = layer(x)
    half = copy.deepcopy(layer).to(dtype)
    y = half(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.03, atol=0.03)
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in half.parameters())


def test_a_compiled_layer_reports_failures_too() -> None:
    layer = imp.compile(NO_ROOT + "  using on_failure=nan\n")
    torch.compiler.reset()
    a = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = torch.compile(layer, fullgraph=True, backend="aot_eager")(a)
    assert torch.isnan(value).tolist() == [False, True]
    assert any(issubclass(w.category, imp.ConvergenceWarning) for w in caught)


@pytest.mark.slow
def test_inductor_agrees_with_eager() -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH, n=8).double()
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(layer, fullgraph=True)
        y = compiled(x)
        (found,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-10)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@dataclass(frozen=True)
class Twice(Solver):
    """Two passes of the same iteration, as a solver that a user adds."""

    tol: float | None = None
    passes: int = 2

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        for _ in range(self.passes):
            solved = Picard(self.tol).solve(problem, z0, a)
            z0 = solved.z
        return solved


def test_a_users_own_solver_is_one_object_in_the_language() -> None:
    method = Method(
        "twice",
        "root",
        "forward",
        (Option("tol", "float", None, "relative tolerance"), Option("passes", "int", 2, "passes", lo=1)),
        "runs a fixed-point iteration again",
        f"{__name__}:Twice",
    )
    language = imp.LANGUAGE.with_solver(method)
    layer = imp.compile(TANH + "  using twice(passes=3)\n", language=language, n=4).double()
    solution = layer.solve(torch.randn(2, 4, dtype=torch.float64))
    assert solution.report.solver == "twice"
    assert solution.report.converged.all()
    assert [d.code for d in imp.check(TANH + "  using twice\n") if d.is_error] == ["IMP701"]


def test_numbers_and_tensors_of_another_precision() -> None:
    layer = imp.compile("layer L():\n  given a in R\n  const c in R = 0.1\n  find z in R such that z^3 + z = a + c\n")
    assert layer(0.4).dtype == torch.float32
    z = layer(torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(z**3 + z, torch.tensor(0.5, dtype=torch.float64), rtol=0, atol=1e-14)
    with pytest.raises(imp.ShapeError, match="x in R\\^n"):
        imp.compile(TANH, n=4)(torch.randn(2, 4, dtype=torch.float64))
