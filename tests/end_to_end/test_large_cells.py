"""Cells that are networks: gradients against float64 references unrolled to convergence, for every large solver."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import implicitdsl as imp

F64, EPS32 = torch.float64, torch.finfo(torch.float32).eps
T, D = 12, 24
SIDES, CHANNELS = (8, 4, 2), (4, 6, 8)

TOKENS = """layer Tokens(t, d):
  given x in R^(t, d)
  fn f: (R^(t, d), R^(t, d)) -> R^(t, d)
  find z in R^(t, d) such that z = f(z, x)
"""
SCALES = """layer Scales(a, b, c):
  given x in R^(a, 8, 8)
  fn f: (R^(a, 8, 8), R^(b, 4, 4), R^(c, 2, 2)) -> R^(a, 8, 8)
  fn g: (R^(a, 8, 8), R^(b, 4, 4), R^(c, 2, 2)) -> R^(b, 4, 4)
  fn h: (R^(a, 8, 8), R^(b, 4, 4), R^(c, 2, 2)) -> R^(c, 2, 2)
  find u in R^(a, 8, 8), v in R^(b, 4, 4), w in R^(c, 2, 2) such that
    u = f(u, v, w) + x
    v = g(u, v, w)
    w = h(u, v, w)
"""
USINGS = {
    "ladder": "",
    "picard": "  using picard, backward gmres\n",
    "anderson": "  using anderson, backward gmres\n",
    "anderson, bicgstab": "  using anderson, backward bicgstab\n",
    "broyden": "  using broyden, backward gmres\n",
    "newton_krylov": "  using newton_krylov, backward gmres\n",
}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.network = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv(z).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return x + 0.4 * self.out(seen) + 0.3 * self.network(x + z)


class Fuse(nn.Module):
    """Three scales to one, by convolution, group normalisation and resizing."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self.side = SIDES[to]
        self.convs = nn.ModuleList(nn.Conv2d(c, CHANNELS[to], 3, padding=1) for c in CHANNELS)
        self.norm = nn.GroupNorm(2, CHANNELS[to], eps=0.5)

    def forward(self, *scales: Tensor) -> Tensor:
        total = torch.zeros(())
        for conv, z in zip(self.convs, scales, strict=True):
            y = conv(z)
            down = y.shape[-1] // self.side
            y = F.avg_pool2d(y, down) if down > 1 else F.interpolate(y, size=(self.side, self.side))
            total = total + torch.tanh(y)
        return 0.3 * self.norm(total)


@dataclass
class Case:
    """`step` takes the state, a tuple, and the input to the next state."""

    text: str
    sizes: dict[str, int]
    cells: dict[str, nn.Module]
    x: Tensor
    state: tuple[tuple[int, ...], ...]
    step: Callable[..., tuple[Tensor, ...]]
    make: Callable[[], Case]  # with the same seed

    def layer(self, using: str = "") -> nn.Module:
        return imp.compile(self.text + using, **self.sizes, bind=self.cells)

    def unrolled(self, x: Tensor, steps: int = 150) -> tuple[Tensor, ...]:
        state = tuple(x.new_zeros(len(x), *shape) for shape in self.state)
        for _ in range(steps):
            state = self.step(state, x)
        return state

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another dtype."""
        made = self.make()
        for cell in made.cells.values():
            cell.to(dtype)
        made.x = self.x.detach().to(dtype).requires_grad_()
        return made

    def leaves(self) -> list[Tensor]:
        return [self.x, *(p for cell in self.cells.values() for p in cell.parameters())]


def transformer() -> Case:
    torch.manual_seed(0)
    cell = Transformer()
    x = torch.randn(3, T, D, requires_grad=True)
    return Case(TOKENS, {"t": T, "d": D}, {"f": cell}, x, ((T, D),), lambda s, x: (cell(s[0], x),), transformer)


def multiscale() -> Case:
    torch.manual_seed(0)
    cells = {name: Fuse(k) for k, name in enumerate("fgh")}
    x = torch.randn(3, CHANNELS[0], 8, 8, requires_grad=True)
    shapes = tuple((c, s, s) for c, s in zip(CHANNELS, SIDES, strict=True))
    sizes = dict(zip("abc", CHANNELS, strict=True))

    def step(s: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        return cells["f"](*s) + x, cells["g"](*s), cells["h"](*s)

    return Case(SCALES, sizes, dict(cells), x, shapes, step, multiscale)


CASES = {"transformer": transformer, "multiscale": multiscale}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture(autouse=True)
def every_solve_converges() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        warnings.filterwarnings("ignore", category=imp.SpecWarning)
        yield


def loss(state: tuple[Tensor, ...]) -> Tensor:
    """Every entry has a weight of its own."""
    return sum(
        ((z * torch.cos(torch.arange(z.numel(), dtype=z.dtype)).view_as(z)).sum() for z in state), start=torch.zeros(())
    )


def outputs(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def gradients(value: Tensor, case: Case) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, case.leaves())]).detach()


def difference(found: Tensor, right: Tensor) -> float:
    return float((found.to(right) - right).norm() / right.norm())


@pytest.mark.parametrize("using", USINGS.values(), ids=USINGS.keys())
def test_gradients_in_float64_for_every_solver(case: Case, using: str) -> None:
    exact = case.to(F64)
    layer = exact.layer(using)
    solution = layer.solve(exact.x)
    assert solution.report.converged.all()
    right = exact.unrolled(exact.x)
    for z, r in zip(outputs(solution.value), right, strict=True):
        torch.testing.assert_close(z, r, rtol=1e-9, atol=1e-10)
    reference = gradients(loss(right), exact)
    assert difference(gradients(loss(outputs(solution.value)), exact), reference) <= 1e-10
    tiny = gradients(1e-9 * loss(outputs(layer(exact.x))), exact)  # the tolerance is relative to the cotangent
    assert difference(1e9 * tiny, reference) <= 1e-10


def condition(exact: Case) -> float:
    """The largest condition number of ∂F/∂z among the samples."""
    sizes = [torch.Size(s).numel() for s in exact.state]
    with torch.no_grad():
        at = torch.cat([z.flatten(1) for z in exact.unrolled(exact.x)], dim=1)

    def residual(z: Tensor, x: Tensor) -> Tensor:
        state = tuple(p.view(1, *s) for p, s in zip(z.split(sizes), exact.state, strict=True))
        return z - torch.cat([y.flatten() for y in exact.step(state, x[None])])

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = [torch.func.jacrev(residual)(z, x.detach()) for z, x in zip(at, exact.x, strict=True)]
    return max(float(torch.linalg.cond(j.detach())) for j in found)


def test_gradients_in_float32_to_rounding_times_the_condition(case: Case) -> None:
    exact = case.to(F64)
    reference = gradients(loss(exact.unrolled(exact.x)), exact)
    found = gradients(loss(outputs(case.layer()(case.x))), case)
    assert difference(found, reference) <= 10 * EPS32 * condition(exact)


def test_training_and_evaluation_have_one_gradient(case: Case) -> None:
    layer = case.layer()
    train = gradients(loss(outputs(layer.train()(case.x))), case)
    assert torch.equal(gradients(loss(outputs(layer.eval()(case.x))), case), train)


def test_leading_dimensions_and_single_samples(case: Case) -> None:
    exact = case.to(F64)
    layer = exact.layer()
    whole = outputs(layer(exact.x))
    nested = outputs(layer(exact.x.expand(2, *exact.x.shape)))
    single = outputs(layer(exact.x[1]))
    for z, n, s in zip(whole, nested, single, strict=True):
        assert n.shape == (2, *z.shape)
        torch.testing.assert_close(n[1], z, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(s, z[1], rtol=1e-9, atol=1e-10)


def test_copies_have_their_own_cells(case: Case) -> None:
    layer = case.layer()
    twin = copy.deepcopy(layer)
    loss(outputs(twin(case.x))).backward()
    assert all(p.grad is None for p in layer.parameters())
    assert all(p.grad is not None for p in twin.parameters())


def saved_bytes(run: Callable[[], object]) -> int:
    """What autograd keeps from the forward pass, every storage once."""
    kept: dict[int, tuple[Tensor, int]] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = (t, t.untyped_storage().nbytes())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(size for _, size in kept.values())


def test_what_is_kept_does_not_depend_on_the_iterations(case: Case) -> None:
    loose, tight = (case.layer(f"  using anderson(tol={t}), backward gmres\n") for t in ("1e-1", "1e-6"))
    few, many = (int(deq.solve(case.x).report.iterations.max()) for deq in (loose, tight))
    assert many >= 2 * few
    assert saved_bytes(lambda: tight(case.x)) == saved_bytes(lambda: loose(case.x))
    assert 4 * saved_bytes(lambda: tight(case.x)) < saved_bytes(lambda: case.unrolled(case.x, many))
