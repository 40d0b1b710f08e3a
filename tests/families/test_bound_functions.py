"""What a bound function draws is held during a solve, moves on once a call, and never makes the gradient wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import implicitdsl as imp

TOKENS = """layer Tokens(t, d):
  given x in R^(t, d)
  fn f: (R^(t, d), R^(t, d)) -> R^(t, d)
  find z in R^(t, d) such that z = f(z, x)
  using anderson, backward gmres
"""
IMAGES = """layer Images(c, h):
  given x in R^(c, h, h)
  fn f: (R^(c, h, h), R^(c, h, h)) -> R^(c, h, h)
  find z in R^(c, h, h) such that z = f(z, x)
  using anderson, backward gmres
"""
F64 = torch.float64


@pytest.fixture(autouse=True)
def every_solve_converges() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        warnings.filterwarnings("ignore", category=imp.SpecWarning)
        yield


def scaled(module: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(factor)
    return module


class Attention(nn.Module):
    """One attention whose dropout is inside torch's own composite."""

    def __init__(self, d: int, heads: int, weights: bool, batch_first: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(d, heads, dropout=0.3, batch_first=batch_first)
        self.weights = weights
        scaled(self, 0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        z, x = (z, x) if self.inner.batch_first else (z.transpose(0, 1), x.transpose(0, 1))
        y = torch.tanh(self.inner(z, z, z, need_weights=self.weights)[0] + x)
        return y if self.inner.batch_first else y.transpose(0, 1)


class Encoder(nn.Module):
    """A whole encoder layer of torch, (t, b, d) inside."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(d, 2, 2 * d, dropout=0.2)
        scaled(self.inner.self_attn, 0.5), scaled(self.inner.linear2, 0.2)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.1 * self.inner(z.transpose(0, 1)).transpose(0, 1) + x


class Fused(nn.Module):
    """Dropout inside the fused attention function."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.q = nn.Linear(d, d)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q = self.q(z)[:, None]
        p = 0.4 if self.training else 0.0
        return x + 0.3 * F.scaled_dot_product_attention(q, q, torch.tanh(q), dropout_p=p, is_causal=True)[:, 0]


CELLS = {
    "attention": lambda: Attention(8, 2, weights=False, batch_first=True),
    "attention with weights": lambda: Attention(8, 2, weights=True, batch_first=True),
    "attention, time first": lambda: Attention(8, 2, weights=False, batch_first=False),
    "encoder layer": lambda: Encoder(8),
    "fused attention": lambda: Fused(8),
}


@pytest.mark.parametrize("name", CELLS)
def test_dropout_inside_attention_is_held(name: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(TOKENS, t=6, d=8, f=CELLS[name]()).double()
    # rates of convergence differ from sample to sample, so rows leave the solve at different times
    x = torch.randn(24, 6, 8, dtype=F64) * torch.logspace(-0.5, 1, 24, dtype=F64)[:, None, None]
    first = layer.solve(x)
    assert first.report.converged.all()
    assert not torch.equal(first.value, layer(x))  # other masks at every call
    torch.manual_seed(1)
    one = layer(x)
    torch.manual_seed(1)
    assert torch.equal(one, layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_gradient_under_dropout_is_that_of_the_held_masks() -> None:
    torch.manual_seed(0)
    layer = imp.compile(TOKENS, t=3, d=4, f=Attention(4, 2, weights=False, batch_first=True)).double()
    x = torch.randn(2, 3, 4, dtype=F64, requires_grad=True)

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return layer(x)

    assert torch.autograd.gradcheck(seeded, x)


def test_dropout_that_is_switched_on_later_is_noticed() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = scaled(nn.Linear(8, 8), 0.5), nn.Dropout(0.0)

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return self.drop(torch.tanh(self.linear(z) + x))

    torch.manual_seed(0)
    cell = Cell()
    layer = imp.compile(TOKENS, t=2, d=8, f=cell).double()
    x = torch.randn(3, 2, 8, dtype=F64)
    assert torch.equal(layer(x), layer(x))
    cell.drop.p = 0.5
    assert (layer(x) == 0).any()
    layer.eval()
    cell.drop.train()  # masks at inference, as in Monte Carlo dropout
    assert not torch.equal(layer(x), layer(x))


def test_a_plain_function_may_drop_too() -> None:
    layer = imp.compile(TOKENS, t=2, d=4, f=lambda z, x: F.dropout(torch.tanh(0.5 * z + x), 0.5))
    torch.manual_seed(0)
    assert (layer(torch.randn(3, 2, 4)) == 0).any()


def test_what_cannot_be_held_is_an_error() -> None:
    layer = imp.compile(TOKENS, t=2, d=4, f=lambda z, x: torch.tanh(0.5 * z + torch.randn_like(x)))
    with pytest.raises(imp.SpecError, match="`f` gives other values at every call"):
        layer(torch.randn(3, 2, 4))


class Normed(nn.Module):
    """relu(BatchNorm(conv(z)) + x), the block of a residual network; conv(0) = 0 has no variance."""

    def __init__(self, c: int, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c, momentum=momentum)
        with torch.no_grad():
            self.norm.weight.fill_(0.2)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.relu(0.3 * self.norm(self.conv(z)) + x)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_are_those_near_the_solution_and_move_once(momentum: float | None) -> None:
    torch.manual_seed(0)
    cell = Normed(4, momentum)
    layer = imp.compile(IMAGES, c=4, h=6, f=cell).double()
    x = torch.randn(16, 4, 6, 6, dtype=F64)
    z = layer(x).detach()
    assert int(cell.norm.num_batches_tracked) == 1
    seen = cell.conv(z)
    var = seen.var((0, 2, 3))
    rate = 1.0 if momentum is None else momentum
    torch.testing.assert_close(cell.norm.running_var, (1 - rate) + rate * var, rtol=0.05, atol=0.0)
    layer(x).sum().backward()
    assert int(cell.norm.num_batches_tracked) == 2
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters())


def test_evaluation_and_training_give_the_same_gradient_without_noise() -> None:
    torch.manual_seed(0)
    cell = nn.Sequential(scaled(nn.Linear(8, 8), 0.5), nn.LayerNorm(8), nn.Tanh(), nn.Dropout(0.0))
    layer = imp.compile(TOKENS, t=3, d=8, f=Residual(cell)).double()
    x = torch.randn(5, 3, 8, dtype=F64)
    found: list[list[Tensor]] = []
    for mode in (True, False):
        layer.train(mode)
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append([p.grad.clone() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.4 * self.inner(z) + x


def test_spectral_normalisation_stands_still_during_a_solve() -> None:
    torch.manual_seed(0)
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
    power = linear.parametrizations.weight[0]
    layer = imp.compile(TOKENS, t=1, d=16, f=Residual(linear)).double()
    x = torch.randn(4, 1, 16, dtype=F64)
    before = power._u.clone()
    z = layer(x)
    moved = power._u.clone()
    assert not torch.equal(before, moved)
    z.sum().backward()
    assert torch.equal(power._u, moved)
    assert power.training
    layer.eval()
    torch.testing.assert_close(layer(x), 0.4 * linear(layer(x)) + x, rtol=1e-10, atol=1e-10)


def test_input_injection_is_computed_once() -> None:
    calls = {"embed": 0, "cell": 0}

    def counted(name: str, module: nn.Module) -> nn.Module:
        module.register_forward_hook(lambda *_: calls.__setitem__(name, calls[name] + 1))
        return module

    text = """layer Injected(n, m):
      given x in R^m
      fn e: R^m -> R^n, f: R^n -> R^n
      find z in R^n such that z = tanh(f(z) + e(x))
      using picard, backward gmres
    """
    torch.manual_seed(0)
    embed = counted("embed", nn.Linear(5, 80))
    layer = imp.compile(text, n=80, m=5, e=embed, f=counted("cell", scaled(nn.Linear(80, 80), 0.5))).double()
    x = torch.randn(3, 5, dtype=F64, requires_grad=True)
    layer(x)
    calls.update(embed=0, cell=0)
    layer(x).sum().backward()
    assert calls["embed"] == 1
    assert calls["cell"] > 10
    assert torch.autograd.gradcheck(layer, x)
    assert embed.weight.grad is not None


@pytest.mark.parametrize("leaf", [True, False])
def test_one_module_under_two_names_and_one_tensor_twice(leaf: bool) -> None:
    text = """layer Pair(n):
      given x in R^n, y in R^n
      fn f: R^n -> R^n, g: R^n -> R^n
      find u in R^n, v in R^n such that
        u = tanh(f(v) + x)
        v = tanh(g(u) + y)
      using anderson, backward gmres
    """
    torch.manual_seed(0)
    shared = scaled(nn.Linear(200, 200), 0.5)
    layer = imp.compile(text, n=200, f=shared, g=shared).double()
    given = torch.randn(2, 200, dtype=F64, requires_grad=True)
    x = given if leaf else 2 * given
    u, v = layer(x, x)
    (u * v).sum().backward()
    found = given.grad.clone(), shared.weight.grad.clone()
    given.grad = shared.weight.grad = None
    x = given if leaf else 2 * given
    u = v = torch.zeros(2, 200, dtype=F64)
    for _ in range(80):
        u, v = torch.tanh(shared(v) + x), torch.tanh(shared(u) + x)
    (u * v).sum().backward()
    torch.testing.assert_close(found, (given.grad, shared.weight.grad), rtol=1e-9, atol=1e-10)


def test_frozen_parameters_cost_and_get_nothing() -> None:
    torch.manual_seed(0)
    cell = Residual(nn.Sequential(nn.Linear(80, 80), nn.Tanh(), nn.Linear(80, 80)))
    cell.inner[0].requires_grad_(False)
    layer = imp.compile(TOKENS, t=4, d=80, f=cell).double()
    layer(torch.randn(2, 4, 80, dtype=F64)).sum().backward()
    assert cell.inner[0].weight.grad is None
    assert cell.inner[2].weight.grad is not None


def test_autocast_runs_the_cell_low_and_the_algebra_high() -> None:
    seen: set[torch.dtype] = set()
    torch.manual_seed(0)
    linear = nn.Linear(32, 32)
    linear.register_forward_hook(lambda _m, _i, out: seen.add(out.dtype))
    layer = imp.compile(TOKENS, t=4, d=32, f=Residual(nn.Sequential(linear, nn.Tanh())))
    x = torch.randn(8, 4, 32, requires_grad=True)
    exact = layer(x)
    (right,) = torch.autograd.grad(exact.square().sum(), linear.weight)
    assert seen == {torch.float32}
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(x)
    assert z.dtype == torch.float32
    (grad,) = torch.autograd.grad(z.square().sum(), linear.weight)
    assert seen == {torch.bfloat16}
    assert grad.dtype == torch.float32
    assert 0 < float((z - exact).detach().norm() / exact.detach().norm()) < 1e-2
    assert float((grad - right).norm() / right.norm()) < 3e-2


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_dropout_is_held_too() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = scaled(nn.Linear(8, 8), 0.5), nn.Dropout(0.5)

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return self.drop(torch.tanh(self.linear(z) + x))

    torch.manual_seed(0)
    layer = imp.compile(TOKENS, t=2, d=8, f=Cell())
    x = torch.randn(3, 2, 8)
    layer(x)
    z = torch.compile(layer, backend="eager")(x)
    assert (z == 0).any()
    z.sum().backward()
