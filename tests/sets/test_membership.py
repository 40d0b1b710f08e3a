"""Values lie on their set, at the start and after any optimiser step; values outside are recognised."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from implicitdsl.lowering.sets import Parametrization, make

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_default_is_inside_and_alive(a_set: Parametrization, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    raw = a_set.default(dtype=dtype).requires_grad_()
    assert raw.shape == a_set.raw_shape
    assert raw.dtype == dtype
    value = a_set.value(raw)
    assert value.shape == a_set.shape
    assert a_set.contains(value)
    directions = min(a_set.shape[-1:] or (1,))
    (grad,) = torch.autograd.grad((value * torch.randn(a_set.shape, dtype=dtype)).sum(), raw)
    assert grad.abs().amax() > 1e-4 / directions


def optimisers() -> dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]]:
    return {
        "sgd 0.1": lambda p: torch.optim.SGD(p, lr=0.1),
        "sgd 10": lambda p: torch.optim.SGD(p, lr=10.0),
        "sgd 1000": lambda p: torch.optim.SGD(p, lr=1000.0),
        "adam 0.01": lambda p: torch.optim.Adam(p, lr=0.01),
        "adam 3": lambda p: torch.optim.Adam(p, lr=3.0),
    }


@pytest.mark.parametrize("optimiser", optimisers())
@pytest.mark.parametrize("dtype", DTYPES)
def test_stays_on_the_set(a_set: Parametrization, dtype: torch.dtype, optimiser: str) -> None:
    torch.manual_seed(1)
    raw = torch.nn.Parameter(a_set.default(dtype=dtype))
    step = optimisers()[optimiser]([raw])
    limit = 1e8 if a_set.__class__.__name__ in ("PSD", "PD", "Monotone") else math.inf
    for _ in range(50):
        step.zero_grad()
        value = a_set.value(raw)
        target = 3 * torch.randn(a_set.shape, dtype=dtype)
        ((value - target).abs() + (value - target).cos()).sum().backward()
        step.step()
        if raw.abs().max() > limit:
            return  # unbounded sets may diverge under such steps; they were on the set up to here
        value = a_set.value(raw.detach())
        assert torch.isfinite(raw).all()
        assert a_set.contains(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_is_a_preimage(a_set: Parametrization, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    value = a_set.value(a_set.default(dtype=dtype) + 0.3 * torch.randn(a_set.raw_shape, dtype=dtype))
    again = a_set.value(a_set.raw(value))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-8
    assert torch.allclose(again, value, rtol=tolerance, atol=tolerance * float(value.abs().max()))
    assert a_set.raw(value).dtype == dtype


def test_leading_dimensions(a_set: Parametrization) -> None:
    torch.manual_seed(3)
    raw = torch.stack([a_set.default(dtype=torch.float64) for _ in range(6)]).unflatten(0, (2, 3))
    value = a_set.value(raw)
    assert value.shape == (2, 3, *a_set.shape)
    assert torch.allclose(value[1, 2], a_set.value(raw[1, 2]))
    inside = a_set.contains(value)
    assert inside.shape == (2, 3)
    assert inside.all()
    assert torch.allclose(a_set.value(a_set.raw(value)), value, atol=1e-8)


def test_not_finite_is_outside(a_set: Parametrization) -> None:
    value = a_set.value(a_set.default(dtype=torch.float64)).detach()
    for bad in (math.nan, math.inf, -math.inf):
        broken = value.clone()
        broken[(-1,) * broken.dim()] = bad
        assert not a_set.contains(broken)


def test_is_a_plain_value(a_set: Parametrization) -> None:
    raw = a_set.default(dtype=torch.float64)
    for twin in (copy.deepcopy(a_set), pickle.loads(pickle.dumps(a_set))):
        assert twin == a_set
        assert hash(twin) == hash(a_set)
        assert torch.equal(twin.value(raw), a_set.value(raw))


def test_meta_tensors(a_set: Parametrization) -> None:
    raw = torch.empty(a_set.raw_shape, device="meta")
    value = a_set.value(raw)
    assert value.device.type == "meta"
    assert value.shape == a_set.shape


def test_wrong_shape_is_refused() -> None:
    ball = make("ball", (3,), (1.0,))
    for question in (ball.value, ball.raw, ball.contains):
        with pytest.raises(ValueError, match=r"has shape \(3,\), not \(4,\)"):
            question(torch.zeros(4))


OUTSIDE = [
    ("positive", [0.0, 1.0], ()),
    ("nonneg", [-1e-3, 1.0], ()),
    ("open", [0.0, 0.5], (0.0, 1.0)),
    ("open", [0.1, 0.05], (0.0, 0.1)),
    ("closed", [0.5, 1.001], (0.0, 1.0)),
    ("open", [0.1, 0.5], (0.1, math.inf)),
    ("open", [-3.0, 0.2], (-math.inf, 0.1)),
    ("closed", [0.5, -1.001], (-1.0, math.inf)),
    ("closed", [0.5, -5.0], (-math.inf, 0.4999)),
    ("simplex", [0.5, 0.501], ()),
    ("simplex", [1.5, -0.5], ()),
    ("ball", [0.8, 0.601], (1.0,)),
    ("sphere", [0.8, 0.601], ()),
    ("PSD", [[1.0, 0.0], [0.0, -1e-3]], ()),
    ("PSD", [[1.0, 0.5], [0.4, 1.0]], ()),
    ("PD", [[1.0, 1.0], [1.0, 1.0]], ()),
    ("PD", [[0.0, 0.0], [0.0, 0.0]], ()),
    ("Sym", [[1.0, 0.5], [0.4, 1.0]], ()),
    ("Skew", [[1.0, 0.5], [-0.5, 0.0]], ()),
    ("Orth", [[1.0, 0.0], [0.0, 1.001]], ()),
    ("Stiefel", [[1.0, 0.1], [0.0, 1.0], [0.0, 0.0]], ()),
    ("SpectralBall", [[0.901, 0.0], [0.0, 0.1]], (0.9,)),
    ("Monotone", [[0.801, 5.0], [-5.0, 0.0]], (0.2,)),
]
BOUNDARY = [
    ("nonneg", [0.0, 2.0], ()),
    ("closed", [-0.1, 0.3], (-0.1, 0.3)),
    ("closed", [-0.1, 2.0], (-0.1, math.inf)),
    ("closed", [-2.0, 0.3], (-math.inf, 0.3)),
    ("simplex", [1.0, 0.0, 0.0], ()),
    ("ball", [0.6, 0.8], (1.0,)),
    ("PSD", [[0.0, 0.0], [0.0, 0.0]], ()),
    ("PSD", [[1.0, 1.0], [1.0, 1.0]], ()),
    ("SpectralBall", [[0.0, 0.9], [0.9, 0.0]], (0.9,)),
    ("Monotone", [[0.8, 1.0], [-1.0, 0.8]], (0.2,)),
]
INTERIOR = [
    ("positive", [1e-30, 1e30], ()),
    ("open", [1e-6, 0.5], (0.0, 1.0)),
    ("open", [1.001, 1e6], (1.0, math.inf)),
    ("open", [-1e6, -1.001], (-math.inf, -1.0)),
    ("PD", [[1.0, 0.0], [0.0, 1e-5]], ()),
    ("PD", [[1e-12, 0.0], [0.0, 1e-12]], ()),
    ("Orth", [[0.0, 1.0], [1.0, 0.0]], ()),
    ("SpectralBall", [[0.0, 0.0], [0.0, 0.0]], (0.9,)),
    ("Monotone", [[0.0, 0.0], [0.0, 0.0]], (0.2,)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, value, args", OUTSIDE)
def test_outside_is_recognised(name: str, value: list[float], args: tuple[float, ...], dtype: torch.dtype) -> None:
    x = torch.tensor(value, dtype=dtype)
    assert not make(name, x.shape, args).contains(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, value, args", BOUNDARY)
def test_boundary_values_start_there_and_can_leave(
    name: str, value: list[float], args: tuple[float, ...], dtype: torch.dtype
) -> None:
    x = torch.tensor(value, dtype=dtype)
    a_set = make(name, x.shape, args)
    assert a_set.contains(x)
    raw = a_set.raw(x).requires_grad_()
    start = a_set.value(raw)
    assert torch.allclose(start, x)
    assert a_set.contains(start)
    inner = a_set.value(a_set.default(dtype=dtype)).detach()
    optimiser = torch.optim.Adam([raw], lr=0.02)
    before = float((start - inner).detach().norm())
    for _ in range(300):
        optimiser.zero_grad()
        (a_set.value(raw) - inner).square().sum().backward()
        optimiser.step()
    assert float((a_set.value(raw) - inner).detach().norm()) < 0.1 * before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, value, args", INTERIOR)
def test_interior_values_are_kept(name: str, value: list[float], args: tuple[float, ...], dtype: torch.dtype) -> None:
    x = torch.tensor(value, dtype=dtype)
    a_set = make(name, x.shape, args)
    assert a_set.contains(x)
    assert torch.allclose(a_set.value(a_set.raw(x)), x, rtol=1e-4, atol=1e-30 if name != "Monotone" else 1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_open_sets_never_touch_their_bounds(dtype: torch.dtype) -> None:
    raw = torch.tensor([-1e30, -1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4, 1e30], dtype=dtype)
    assert (make("positive", (9,)).value(raw) > 0).all()
    for a, b in ((0.0, 1.0), (0.1, 0.3), (-3.0, -1.0), (-1.0, 0.0), (5.0, 6.0), (0.1, math.inf), (-math.inf, 7.0)):
        value = make("open", (9,), (a, b)).value(raw)
        low, high = torch.tensor([a, b], dtype=dtype)
        assert (value > low).all()
        assert (value < high).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 40, 200])
def test_pd_has_a_cholesky_factor(n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    a_set = make("PD", (n, n))
    for scale in (0.0, 1e-15, 1.0, 1e15):
        raw = torch.zeros(n, n, dtype=dtype)
        raw[:, :1] = scale * torch.randn(n, 1, dtype=dtype)
        assert torch.linalg.cholesky_ex(a_set.value(raw))[1] == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1.8, 1e3, 1e6])
@pytest.mark.parametrize("dtype", DTYPES)
def test_spectral_norm_is_kept(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(5)
    a_set = make("SpectralBall", (64, 64), (0.9,))
    orthogonal = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q
    for raw in (torch.randn(64, 64, dtype=torch.float64), orthogonal, orthogonal[:, :1] @ orthogonal[:1]):
        value = a_set.value((scale * raw).to(dtype))
        assert torch.linalg.matrix_norm(value.double(), 2) <= 0.9 * (1 + 1e-6)


def test_spectral_ball_comes_back_inside() -> None:
    torch.manual_seed(8)
    a_set = make("SpectralBall", (8, 8), (0.9,))
    raw = (0.7 * torch.randn(8, 8, dtype=torch.float64)).requires_grad_()
    assert torch.linalg.matrix_norm(raw, 2) > 3
    target = a_set.value(0.1 * torch.randn(8, 8, dtype=torch.float64)).detach()
    start = float((a_set.value(raw) - target).detach().norm())
    optimiser = torch.optim.Adam([raw], lr=0.02)
    for _ in range(1000):
        optimiser.zero_grad()
        (a_set.value(raw) - target).square().sum().backward()
        optimiser.step()
    # scaling by min(1, c/norm) stays at the norm c, 0.2 of `start` away at least
    assert float((a_set.value(raw) - target).detach().norm()) < 0.1 * start


def test_orth_keeps_both_determinants() -> None:
    a_set = make("Orth", (3, 3))
    reflection = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    assert torch.equal(a_set.value(a_set.raw(reflection)), reflection)
    torch.manual_seed(6)
    signs = {round(float(torch.linalg.det(a_set.value(a_set.default())))) for _ in range(20)}
    assert signs == {-1, 1}


def test_zero_raw_vectors_have_a_direction() -> None:
    for name in ("simplex", "sphere"):
        a_set = make(name, (4,))
        raw = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        value = a_set.value(raw)
        assert a_set.contains(value)
        (grad,) = torch.autograd.grad((value * torch.arange(4.0)).sum(), raw)
        assert torch.isfinite(grad).all()
        assert grad.abs().max() > 0


def test_default_of_matrices_is_that_of_linear() -> None:
    torch.manual_seed(7)
    expected = torch.nn.Linear(30, 20).weight.detach()
    torch.manual_seed(7)
    assert torch.allclose(make("R", (20, 30)).default(), expected)
    torch.manual_seed(7)
    start = make("SpectralBall", (20, 20), (100.0,))
    value = start.value(start.default())
    torch.manual_seed(7)
    assert torch.allclose(value, torch.nn.Linear(20, 20).weight, atol=1e-6)
    assert torch.equal(make("R", (5,)).default(), torch.zeros(5))
    assert torch.equal(make("closed", (5,), (-1.0, 1.0)).value(torch.zeros(5)), torch.zeros(5))


@pytest.mark.parametrize(
    "name, shape, args",
    [
        ("Ball", (3,), (1.0,)),
        ("ball", (3,), ()),
        ("ball", (3,), (-1.0,)),
        ("ball", (), (1.0,)),
        ("closed", (3,), (1.0, 1.0)),
        ("open", (3,), (-math.inf, math.inf)),
        ("closed", (3,), (math.inf, 0.0)),
        ("open", (3,), (0.0, math.nan)),
        ("PSD", (2, 3), ()),
        ("Stiefel", (2, 3), ()),
        ("SpectralBall", (2, 2), (0.0,)),
        ("Monotone", (2, 2), (math.nan,)),
        ("simplex", (0,), ()),
        ("sphere", (0,), ()),
    ],
)
def test_sets_that_do_not_exist(name: str, shape: tuple[int, ...], args: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"no set 'Ball'|takes 1 numbers|^\w+\(shape=.*\): \w"):
        make(name, shape, args)
