"""First and second derivatives, torch.func, torch.compile and autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from implicitdsl.lowering.sets import Parametrization, make

# torch's own forward-mode rules are built with it on first use
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def somewhere(a_set: Parametrization, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return a_set.default(dtype=torch.float64) + 0.3 * torch.randn(a_set.raw_shape, dtype=torch.float64)


def test_first_and_second_derivatives(a_set: Parametrization) -> None:
    raw = somewhere(a_set).requires_grad_()
    assert gradcheck(a_set.value, raw, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(a_set.value, raw)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_derivatives_at_special_points(scale: float) -> None:
    """Repeated singular values, the boundary of the ball, zero."""
    for a_set in (make("SpectralBall", (3, 3), (0.5,)), make("PSD", (3, 3)), make("Sym", (3, 3))):
        raw = (scale * torch.eye(3, dtype=torch.float64)).requires_grad_()
        assert gradcheck(a_set.value, raw, check_forward_ad=True)
        assert gradgradcheck(a_set.value, raw)
    for name in ("positive", "nonneg"):
        raw = torch.tensor([0.0, -scale, scale, 10 * scale, -10 * scale], dtype=torch.float64, requires_grad=True)
        assert gradcheck(make(name, (5,)).value, raw)
        assert gradgradcheck(make(name, (5,)).value, raw)
    for name, args in (("open", (0.0, 2.0)), ("closed", (0.0, 2.0)), ("ball", (2.0,))):
        raw = torch.tensor([0.0, -scale, scale], dtype=torch.float64, requires_grad=True)
        assert gradcheck(make(name, (3,), args).value, raw)
        assert gradgradcheck(make(name, (3,), args).value, raw)


def test_transforms(a_set: Parametrization) -> None:
    raws = torch.stack([somewhere(a_set, seed) for seed in range(3)])
    weight = torch.randn(a_set.shape, dtype=torch.float64)

    def loss(raw: Tensor) -> Tensor:
        return (a_set.value(raw) * weight).sin().sum()

    assert torch.allclose(vmap(a_set.value)(raws), torch.stack([a_set.value(r) for r in raws]))
    reverse = torch.stack([jacrev(a_set.value)(r) for r in raws])
    assert torch.allclose(vmap(jacrev(a_set.value))(raws), reverse)
    assert torch.allclose(vmap(jacfwd(a_set.value))(raws), reverse)
    twice = torch.stack([torch.autograd.functional.hessian(loss, r) for r in raws])
    for second in (hessian(loss), jacrev(grad(loss)), jacrev(jacfwd(loss)), jacfwd(jacfwd(loss))):
        assert torch.allclose(vmap(second)(raws), twice)


def test_forward_mode_on_a_plain_parameter(a_set: Parametrization) -> None:
    """The kept factors of an earlier call carry no tangents."""
    raw = somewhere(a_set)
    tangent = torch.randn_like(raw)
    a_set.value(raw)
    expected = jvp(a_set.value, (raw,), (tangent,))[1]
    with forward_ad.dual_level():
        dual = a_set.value(forward_ad.make_dual(raw, tangent))
        assert torch.allclose(forward_ad.unpack_dual(dual).tangent, expected)
    a_set.value(raw).sum()


def test_compiles_whole(a_set: Parametrization) -> None:
    torch._dynamo.reset()
    raw = somewhere(a_set).float().requires_grad_()
    weight = torch.randn(a_set.shape)

    def loss(raw: Tensor) -> Tensor:
        return (a_set.value(raw) * weight).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected, actual = loss(raw), compiled(raw)
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)
    (g_expected,), (g_actual,) = torch.autograd.grad(expected, raw), torch.autograd.grad(actual, raw)
    assert torch.allclose(g_actual, g_expected, rtol=1e-3, atol=1e-4)


def test_compiled_transforms() -> None:
    """Under compile torch traces into a custom Function's forward, where detached factors would have no derivative."""
    torch._dynamo.reset()
    a_set = make("SpectralBall", (3, 3), (0.9,))
    raws = torch.stack([somewhere(a_set, seed) for seed in range(3)])

    def loss(raw: Tensor) -> Tensor:
        return a_set.value(raw).sin().sum()

    for transformed, at in ((vmap(grad(loss)), raws), (jacfwd(loss), raws[0])):
        compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(at), transformed(at))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch._prims_common.check`:FutureWarning")  # inside inductor
@pytest.mark.parametrize("name", ["SpectralBall", "Orth", "PD"])
def test_compiles_with_inductor(name: str) -> None:
    torch._dynamo.reset()
    a_set = make(name, (5, 5), (0.9,) if name == "SpectralBall" else ())
    raw = somewhere(a_set).float().requires_grad_()
    value = torch.compile(a_set.value, fullgraph=True)(raw)
    assert a_set.contains(value)
    (actual,), (expected,) = (torch.autograd.grad(v.sin().sum(), raw) for v in (value, a_set.value(raw)))
    assert torch.allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_autocast_does_not_leave_the_set(a_set: Parametrization) -> None:
    raw = somewhere(a_set).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = a_set.value(raw)
    assert value.dtype == torch.float32
    assert a_set.contains(value)


def test_half_precision(a_set: Parametrization) -> None:
    raw = somewhere(a_set).bfloat16()
    value = a_set.value(raw)
    assert value.dtype == torch.bfloat16
    assert torch.allclose(value.float(), a_set.value(raw.float()), rtol=0.02, atol=0.02)
