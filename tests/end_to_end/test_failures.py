"""Nothing fails silently: rows of NaN, equations without solution, singular points, policies, lost gradients."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import implicitdsl as imp

CIRCLE = """layer Circle():
  given a in R
  find z in nonneg such that a^2 + z^2 = 1
"""
TANH = """layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = tanh(W z + x)
"""
NO_FIXED_POINT = """layer None_():
  given a in R
  find z in R such that z = z^2 + a
"""


def circle(policy: str = "warn") -> nn.Module:
    return imp.compile(CIRCLE + f"  using on_failure={policy}\n")


def test_circle_and_its_derivative() -> None:
    a = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64, requires_grad=True)
    z = circle()(a)
    torch.testing.assert_close(z, torch.sqrt(1 - a**2), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(z.sum(), a)
    torch.testing.assert_close(slope, -a / z, rtol=1e-10, atol=1e-12)


def test_singular_point_is_reported_and_no_infinity_comes_back() -> None:
    a = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)
    layer = circle()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z = layer(a)
        (slope,) = torch.autograd.grad(z.sum(), a)
    assert any(issubclass(w.category, imp.ConvergenceWarning) and "<string>:3" in str(w.message) for w in caught)
    torch.testing.assert_close(slope[0], torch.tensor(-0.75, dtype=torch.float64))
    assert torch.isfinite(slope[0])
    assert not torch.isinf(slope[1])


def test_no_solution_is_reported_by_sample() -> None:
    a = torch.tensor([0.0, 1.0], dtype=torch.float64)
    layer = imp.compile(NO_FIXED_POINT)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        solution = layer.solve(a)
    assert solution.report.converged.tolist() == [True, False]
    torch.testing.assert_close(solution.value[0], torch.zeros((), dtype=torch.float64), atol=1e-10, rtol=0)


def test_raise_attaches_the_solution() -> None:
    layer = imp.compile(NO_FIXED_POINT + "  using on_failure=raise\n")
    with pytest.raises(imp.ConvergenceError, match="<string>:3") as error:
        layer(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert error.value.solution.report.converged.tolist() == [True, False]


def test_nan_marks_the_failed_rows_only() -> None:
    layer = imp.compile(NO_FIXED_POINT + "  using on_failure=nan\n")
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        value = layer(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.isnan(value).tolist() == [False, True]


def test_a_row_of_nan_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH, n=4).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    clean = layer.solve(x)
    spoiled = x.clone()
    spoiled[1] = torch.nan
    with pytest.warns(imp.ConvergenceWarning, match="1 of 3"):
        solution = layer.solve(spoiled)
    assert solution.report.converged.tolist() == [True, False, True]
    torch.testing.assert_close(solution.value[[0, 2]], clean.value[[0, 2]], rtol=0, atol=1e-12)
    assert (solution.report.iterations[[0, 2]] - clean.report.iterations[[0, 2]]).abs().max() <= 1


def test_a_start_of_zero_jacobian_recovers() -> None:
    layer = imp.compile(CIRCLE + "  using newton, start zeros\n")
    a = torch.tensor([0.6, -0.8], dtype=torch.float64)
    torch.testing.assert_close(layer(a), torch.tensor([0.8, 0.6], dtype=torch.float64), rtol=0, atol=1e-10)


def test_a_solution_outside_its_set_is_not_returned_in_silence() -> None:
    layer = imp.compile("layer L():\n  given a in R\n  find z in positive such that z = a\n")
    with pytest.warns(imp.ConvergenceWarning):
        solution = layer.solve(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert solution.report.converged.tolist() == [True, False]


def test_start_from_an_earlier_solution_takes_fewer_iterations() -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH + "  using anderson\n", n=16).double()
    x = torch.randn(8, 16, dtype=torch.float64)
    first = layer.solve(x)
    again = layer.solve(x, start=first)
    assert int(again.report.iterations.max()) < int(first.report.iterations.max())
    torch.testing.assert_close(again.value, first.value, rtol=0, atol=1e-10)


def test_shared_parameters_get_the_sum_of_their_gradients() -> None:
    torch.manual_seed(0)
    layer = imp.compile(TANH, n=4).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    raw = list(layer.parameters())
    together = torch.autograd.grad(layer(x).sum(), raw)
    apart = [torch.autograd.grad(layer(row).sum(), raw) for row in x]
    for k, gradient in enumerate(together):
        torch.testing.assert_close(gradient, sum(g[k] for g in apart), rtol=1e-9, atol=1e-10)


def test_an_input_without_batch_gets_the_sum_of_its_gradients() -> None:
    text = TANH.replace("given x in R^n", "given x in R^n, c in R^n").replace("+ x", "+ x + c")
    torch.manual_seed(0)
    layer = imp.compile(text, n=3).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    c = torch.randn(3, dtype=torch.float64, requires_grad=True)
    many = c.detach().expand(4, 3).clone().requires_grad_()
    (shared,) = torch.autograd.grad(layer(x, c).square().sum(), c)
    (apart,) = torch.autograd.grad(layer(x, many).square().sum(), many)
    torch.testing.assert_close(shared, apart.sum(0), rtol=1e-10, atol=1e-12)


def test_a_closure_over_a_trained_tensor_is_an_error() -> None:
    weight = torch.randn(3, 3, requires_grad=True)
    text = "layer L():\n  given x in R^3\n  fn f: (R^3, R^3) -> R^3\n  find z in R^3 such that z = f(z, x)\n"
    layer = imp.compile(text, f=lambda z, x: torch.tanh(0.1 * z @ weight + x))
    with pytest.raises(imp.SpecError, match=r"nn\.Module"):
        layer(torch.randn(2, 3))


def test_dropout_keeps_one_mask_a_solve() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)
            with torch.no_grad():
                self.linear.weight.mul_(0.3)

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.dropout(torch.tanh(self.linear(z) + x))

    text = "layer L():\n  given x in R^8\n  fn f: (R^8, R^8) -> R^8\n  find z in R^8 such that z = f(z, x)\n"
    torch.manual_seed(0)
    layer = imp.compile(text, f=Cell()).double()
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        first, second = layer(x), layer(x)
        first.sum().backward()
    assert not torch.equal(first, second)
    assert (first == 0).any()
    assert torch.isfinite(x.grad).all()


def test_batch_statistics_are_updated_once_a_call() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            with torch.no_grad():
                self.linear.weight.mul_(0.1)
                self.norm.weight.mul_(0.1)

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.norm(self.linear(z) + x))

    text = "layer L():\n  given x in R^4\n  fn f: (R^4, R^4) -> R^4\n  find z in R^4 such that z = f(z, x)\n"
    torch.manual_seed(0)
    cell = Cell()
    layer = imp.compile(text, f=cell).double()
    layer(torch.randn(16, 4, dtype=torch.float64))
    assert int(layer.f.norm.num_batches_tracked) == 1


FLAT = """layer Flat():
  given a in R, w in R
  find z in R such that a^2 + z^2 = w
  using newton, start 1, on_failure={}
"""


@pytest.mark.parametrize("policy", ["nan", "warn"])
def test_shared_gradients_leave_out_rows_without_a_derivative(policy: str) -> None:
    layer = imp.compile(FLAT.format(policy))
    a = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with pytest.warns(imp.ConvergenceWarning, match="IMP802"):
        by_sample, shared = torch.autograd.grad(layer(a, w).sum(), (a, w))
    torch.testing.assert_close(by_sample[0], torch.tensor(-0.75, dtype=torch.float64))
    assert bool(by_sample[1].isnan()) == (policy == "nan")
    torch.testing.assert_close(shared, torch.tensor(0.5 / 0.8, dtype=torch.float64))


@pytest.mark.parametrize("policy", ["nan", "warn"])
def test_blocks_before_a_failed_one_keep_their_shared_gradients(policy: str) -> None:
    text = """layer Two():
  given a in R
  param w in R = 1
        v in R = 0.5
  using on_failure={0}
  find u in R such that u = v sin(u) / 2 + a
  find z in R such that u^2 + z^2 = w
  using newton, start 1, on_failure={0}
"""
    layer = imp.compile(text.format(policy)).double()
    v = float(layer.v.detach())
    u = torch.tensor([0.6, 1.0], dtype=torch.float64)
    a = u - v * u.sin() / 2
    z = layer(a)[1]
    with pytest.warns(imp.ConvergenceWarning, match="IMP802"):
        shared = torch.autograd.grad(z.sum(), [layer.get_parameter(k) for k in ("w", "v")])
    du = u[0].sin() / 2 / (1 - v * u[0].cos() / 2)
    torch.testing.assert_close(shared[0], torch.tensor(0.5 / 0.8, dtype=torch.float64))
    torch.testing.assert_close(shared[1], -u[0] / 0.8 * du)


@pytest.mark.parametrize("batched", [False, True])
def test_marked_gradients_under_transforms(batched: bool) -> None:
    layer = imp.compile(FLAT.format("nan"))
    a, w = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    right = torch.tensor([-0.6 / 0.8, -0.8 / 0.6], dtype=torch.float64)
    f = (
        torch.func.vmap(torch.func.grad(layer), in_dims=(0, None))
        if batched
        else torch.func.grad(lambda a, w: layer(a, w).sum())
    )
    torch.testing.assert_close(f(a, w), right)
    _, tangent = torch.func.jvp(lambda a: layer(a, w), (a,), (torch.ones_like(a),))
    torch.testing.assert_close(tangent, right)
    assert torch.autograd.gradgradcheck(layer, (a.requires_grad_(), w.requires_grad_()))


def test_one_singular_matrix_spoils_no_other_sample() -> None:
    layer = imp.compile(
        "layer L(n):\n  given A in R^(n, n), x in R^n\n  find z in R^n such that z = 0.1 tanh(z) + A^-1 x\n", n=3
    )
    A = torch.stack(
        [
            torch.eye(3, dtype=torch.float64),
            torch.zeros(3, 3, dtype=torch.float64),
            2 * torch.eye(3, dtype=torch.float64),
        ]
    )
    x = torch.ones(3, 3, dtype=torch.float64)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 3"):
        solution = layer.solve(A, x)
    assert solution.report.converged.tolist() == [True, False, True]
    alone = layer(A[[0, 2]], x[[0, 2]])
    torch.testing.assert_close(solution.value[[0, 2]], alone, rtol=0, atol=1e-14)
