"""What a `Solution` says of its equations: Jacobian norm, spectral radius, rate and error bound."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

F64 = torch.float64
CONTRACTION = """layer Contraction(n):
  given x in R^n
  param W in SpectralBall(n, 0.8)
  find z in R^n such that z = tanh(W z + x)
"""
FREE = CONTRACTION.replace("SpectralBall(n, 0.8)", "R^(n, n)")


def build(text: str = CONTRACTION, n: int = 4, using: str = "") -> nn.Module:
    torch.manual_seed(0)
    return imp.compile(text + using, n=n).double()


def inputs(n: int = 4) -> Tensor:
    return torch.randn(2, 3, n, generator=torch.Generator().manual_seed(1), dtype=F64)


def jacobians(layer: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    return (1 - torch.tanh(z @ layer.W.mT + x).square()).unsqueeze(-1) * layer.W


def fixed_point(w: Tensor, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(300):
        z = torch.tanh(z @ w.mT + x)
    return z


# -- Jacobian regularisation -------------------------------------------------------------------------------------------


def test_jacobian_norm_is_the_squared_frobenius_norm_of_each_sample() -> None:
    layer, x = build(), inputs()
    solution = layer.solve(x)
    right = jacobians(layer, x, solution.value).square().sum((-2, -1))
    torch.testing.assert_close(solution.jacobian_norm(samples=None), right)
    many = solution.jacobian_norm(samples=3000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(many, right, rtol=0.1, atol=0)
    assert solution.jacobian_norm().shape == (2, 3)


@pytest.mark.parametrize("using", ["", "  using picard\n", "  using anderson, backward gmres\n"])
def test_its_gradient_is_whole(using: str) -> None:
    layer, x = build(using=using), inputs().requires_grad_()
    raw = layer.get_parameter("W")
    found = torch.autograd.grad(layer.solve(x).jacobian_norm(samples=None).sum(), (raw, x))
    z = fixed_point(layer.W, x)
    right = torch.autograd.grad(jacobians(layer, x, z).square().sum(), (raw, x))
    for f, r in zip(found, right, strict=True):
        torch.testing.assert_close(f, r, rtol=1e-8, atol=1e-9)


def trained(weight: float) -> Tensor:
    """The squared norm after training with this weight of it in the loss."""
    layer, x = build(FREE), inputs()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        optimiser.zero_grad()
        solution = layer.solve(x)
        loss = (solution.value - 0.5).square().mean() + weight * solution.jacobian_norm(generator=generator).mean()
        loss.backward()
        optimiser.step()
    return layer.solve(x).jacobian_norm(samples=None).mean()


def test_it_trains() -> None:
    assert trained(0.3) < 0.3 * trained(0.0)


def test_bound_cells_have_one_too() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)
            with torch.no_grad():
                self.linear.weight.mul_(0.5)

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(self.linear(z) + x)

    torch.manual_seed(0)
    text = "layer L(n):\n  given x in R^n\n  fn f: (R^n, R^n) -> R^n\n  find z in R^n such that z = f(z, x)\n"
    cell = Cell().double()
    layer, x = imp.compile(text, n=5, f=cell), inputs(5)
    solution = layer.solve(x)
    j = (1 - solution.value.square()).unsqueeze(-1) * cell.linear.weight
    norm = solution.jacobian_norm(samples=None)
    torch.testing.assert_close(norm, j.square().sum((-2, -1)))
    z = torch.zeros_like(x)
    for _ in range(300):
        z = cell(z, x)
    reference = ((1 - z.square()).unsqueeze(-1) * cell.linear.weight).square().sum()
    right = torch.autograd.grad(reference, cell.linear.weight)[0]
    torch.testing.assert_close(torch.autograd.grad(norm.sum(), cell.linear.weight)[0], right, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(solution.spectral_radius(), torch.linalg.eigvals(j.detach()).abs().amax(-1))


def test_matrix_unknowns_and_several_unknowns() -> None:
    text = """layer Two(n):
  given x in R^n, Y in R^(n, n)
  param A in R^(n, n)
  find u in R^n, V in R^(n, n) such that
    u = tanh(V x + u / 4)
    V = 1/4 sigmoid(A V + Y + u u^T)
"""
    layer = build(text, 3)
    x, y = inputs(3)[0], torch.randn(3, 3, 3, dtype=F64)
    solution = layer.solve(x, y)

    def step(state: Tensor, x: Tensor, y: Tensor) -> Tensor:
        u, v = state[:3], state[3:].view(3, 3)
        new = torch.tanh(v @ x + u / 4), torch.sigmoid(layer.A @ v + y + torch.outer(u, u)) / 4
        return torch.cat([n.flatten() for n in new])

    state = torch.cat([solution.value.u, solution.value.V.flatten(1)], dim=-1)
    j = torch.func.vmap(torch.func.jacrev(step))(state, x, y).detach()
    torch.testing.assert_close(solution.jacobian_norm(samples=None), j.square().sum((-2, -1)))
    torch.testing.assert_close(solution.spectral_radius(), torch.linalg.eigvals(j).abs().amax(-1))


# -- spectral radius ---------------------------------------------------------------------------------------------------


def test_spectral_radius_of_a_rotation_and_of_a_jordan_block() -> None:
    layer = imp.compile("layer A():\n  given x in R^2\n  param W in R^(2, 2)\n  find z in R^2 such that z = W z + x\n")
    layer.double()
    x = torch.ones(2, dtype=F64)
    for matrix, radius in (([[0.0, -0.9], [0.9, 0.0]], 0.9), ([[0.5, 9.0], [0.0, 0.5]], 0.5)):
        layer.W = torch.tensor(matrix, dtype=F64)
        solution = layer.solve(x)
        torch.testing.assert_close(solution.spectral_radius(), torch.tensor(radius, dtype=F64), rtol=1e-6, atol=0)
        assert not solution.report.certified
        torch.testing.assert_close(solution.report.rate, solution.spectral_radius())


# -- rate and error bound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", ["1e-1", "1e-3", "1e-12"])
@pytest.mark.parametrize("method", ["picard", "anderson", "newton", "broyden"])
def test_a_certified_error_bound_holds(method: str, tol: str) -> None:
    layer, x = build(using=f"  using {method}(tol={tol})\n"), inputs()
    solution = layer.solve(x)
    report = solution.report
    assert report.certified.all()
    torch.testing.assert_close(report.rate, torch.full((2, 3), 0.8, dtype=F64))
    error = (solution.value - fixed_point(layer.W, x)).norm(dim=-1)
    assert (error <= report.error_bound).all()
    residual = (torch.tanh(solution.value @ layer.W.mT + x) - solution.value).norm(dim=-1)
    assert (report.error_bound <= 5.001 * residual + 1e-13).all()


@pytest.mark.parametrize("using", ["  using picard(tol=1e-3)\n", "  using anderson(tol=1e-3)\n"])
@pytest.mark.parametrize("n", [4, 120])
def test_without_a_certificate_the_error_is_estimated_and_said_so(n: int, using: str) -> None:
    layer, x = build(FREE, n, using), inputs(n)
    solution = layer.solve(x)
    assert not solution.report.certified.any()
    error = (solution.value - fixed_point(layer.W, x)).norm(dim=-1)
    torch.testing.assert_close(solution.report.error_bound, error, rtol=0.1, atol=1e-12)
    radius = torch.linalg.eigvals(jacobians(layer, x, solution.value).detach()).abs().amax(-1)
    torch.testing.assert_close(solution.report.rate, radius, rtol=1e-2, atol=0)


def test_a_rate_that_is_proved_in_a_box_only_certifies_nothing() -> None:
    text = "layer B():\n  given a in [0, 1]\n  find z in [0, 1] such that z = z^2 / 4 + a / 4\n  using picard\n"
    layer = imp.compile(text)
    assert "contraction: 0.5" in layer.explain()
    assert not layer.solve(torch.tensor([0.5], dtype=F64)).report.certified.any()


def test_equations_that_are_no_fixed_point_have_an_error_but_no_map() -> None:
    layer = imp.compile(
        "layer R():\n  given a in R\n  find z in positive such that z^2 = a\n  using newton(tol=1e-2)\n"
    )
    a = torch.tensor([2.0, 3.0], dtype=F64)
    solution = layer.solve(a)
    torch.testing.assert_close(solution.report.error_bound, (solution.value - a.sqrt()).abs(), rtol=1e-1, atol=1e-9)
    assert solution.report.rate.isnan().all()
    for ask in (solution.jacobian_norm, solution.spectral_radius):
        with pytest.raises(TypeError, match=r"z do not read z = f\(z\)"):
            ask()


def test_explicit_layers_have_no_error_and_blocks_add_up() -> None:
    layer = imp.compile("layer E():\n  given a in R\n  find z in R such that z = 2 a\n")
    solution = layer.solve(torch.ones(3))
    assert solution.report.certified.all()
    assert not solution.report.error_bound.any()
    assert not solution.jacobian_norm().any()
    text = "layer S():\n  given a in R\n  find u in R, v in R such that u = tanh(u / 2 + a), v = sin(v / 4 + u)\n"
    a = torch.tensor([0.3, -2.0], dtype=F64)
    solution = imp.compile(text).solve(a)
    u, v = solution.value
    slopes = (1 - u.square()) / 2, torch.cos(v / 4 + u) / 4
    torch.testing.assert_close(solution.jacobian_norm(samples=None), sum(s.square() for s in slopes))
    torch.testing.assert_close(solution.spectral_radius(), torch.maximum(*(s.abs() for s in slopes)))
    assert not solution.report.certified.any()
    assert all(block.certified.all() for block in solution.report.blocks)


def test_changed_parameters_are_noticed() -> None:
    layer, x = build(FREE), inputs()
    solution = layer.solve(x)
    with torch.no_grad():
        layer.get_parameter("W").mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        solution.jacobian_norm()


def test_reports_are_copied_without_their_equations() -> None:
    layer, x = build(), inputs()
    report = layer.solve(x).report
    for again in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report)):
        torch.testing.assert_close(again.error_bound, report.error_bound)
        assert again.certified.all()


def test_single_samples_and_half_precision() -> None:
    layer, x = build(), inputs()[0, 0]
    solution = layer.solve(x)
    assert solution.jacobian_norm().shape == solution.spectral_radius().shape == solution.report.rate.shape == ()
    low = layer.bfloat16().solve(x.bfloat16())
    torch.testing.assert_close(low.spectral_radius().double(), solution.spectral_radius(), rtol=2e-2, atol=0)
