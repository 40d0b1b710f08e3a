"""Every fact that a function states is sampled: range, Lipschitz constant, monotonicity, curvature, smoothness."""

from __future__ import annotations

import math

import pytest
import torch
from reference_evaluator import evaluate
from torch import Tensor

from implicitdsl.functions import FUNCTIONS, TABLE
from implicitdsl.ground.facts import Curvature, Monotone, Smoothness
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Role, sym

SAMPLES = 4000
SLACK = 1e-9
POSITIVE = {"log", "sqrt"}
MATRIX = {"logdet", "det", "inv", "tr"}
FIXED = {"I", "zeros", "ones", "reshape", "scale_rows", "scale_columns", "dot"}  # typed by dimensions, or bilinear
CALLED = [f for f in FUNCTIONS if f.name not in FIXED]


def call(f: Function, args: tuple[Tensor, ...]) -> Tensor:
    nodes = [sym(f"x{k}", Role.GIVEN, tuple(map(Dim.of, a.shape))) for k, a in enumerate(args)]
    return evaluate(f.build(nodes), dict(zip(nodes, args, strict=True)))


def draw(f: Function, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Arguments from the domain, of several scales."""

    def normal(*shape: int) -> Tensor:
        scale = 10 ** float(torch.empty(()).uniform_(-1, 1, generator=generator))
        return scale * torch.randn(shape, dtype=torch.float64, generator=generator)

    if f.name in MATRIX:
        A = normal(3, 3)
        return (A @ A.T + 0.1 * torch.eye(3, dtype=torch.float64),)
    if f.elementwise:
        if f.name == "clamp":
            lo = normal(6)
            return normal(6), lo, lo + normal(6).abs()
        args = tuple(normal(6) for _ in range(f.arity[0]))
        return tuple(a.abs() for a in args) if f.name in POSITIVE else args
    if f.name in ("maximum", "minimum", "concat", "stack"):
        return normal(4), normal(4)
    return (normal(3, 4),) if f.name == "norm_F" else (normal(4),)


def pairs(f: Function, seed: int = 0, count: int = 200) -> list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    generator = torch.Generator().manual_seed(seed)
    return [(draw(f, generator), draw(f, generator)) for _ in range(count)]


@pytest.mark.parametrize("f", CALLED, ids=lambda f: f.name)
def test_range(f: Function) -> None:
    for a, b in pairs(f):
        for args in (a, b):
            y = call(f, args)
            assert bool((y >= f.range.lo - SLACK).all())
            assert bool((y <= f.range.hi + SLACK).all())


@pytest.mark.parametrize("f", [f for f in CALLED if f.lipschitz is not None], ids=lambda f: f.name)
def test_lipschitz_in_each_argument(f: Function) -> None:
    assert f.lipschitz is not None
    for a, b in pairs(f):
        for k in range(len(a)):
            if f.name == "clamp" and k:
                continue  # bounds are ordered, so they can't be exchanged one at a time
            moved = (*a[:k], b[k], *a[k + 1 :])
            change, step = call(f, moved) - call(f, a), b[k] - a[k]
            if f.elementwise:
                assert bool((change.abs() <= f.lipschitz * step.abs() + SLACK).all())
            else:
                assert float(change.norm()) <= f.lipschitz * float(step.norm()) + SLACK


SHARP = ["tanh", "sigmoid", "erf", "relu", "softplus", "gelu", "silu", "sin", "cos", "abs", "norm", "softmax"]


@pytest.mark.parametrize("name", SHARP)
def test_the_lipschitz_constant_is_nearly_attained(name: str) -> None:
    f = TABLE[name]
    assert f.lipschitz is not None
    if name == "softmax":
        x, t = torch.tensor([0.0, 0.0, -50.0], dtype=torch.float64), torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
        slopes = [(call(f, (x + 1e-4 * t,)) - call(f, (x,))).norm() / (1e-4 * t).norm()]
    elif f.elementwise:
        x = torch.linspace(-10, 10, 20001, dtype=torch.float64)
        slopes = [((call(f, (x,))[1:] - call(f, (x,))[:-1]) / (x[1:] - x[:-1])).abs().max()]
    else:
        x = torch.tensor([3.0, 4.0], dtype=torch.float64)
        slopes = [(call(f, (x * 1.01,)) - call(f, (x,))).abs() / (0.01 * x).norm()]
    assert float(slopes[0]) >= 0.998 * f.lipschitz


@pytest.mark.parametrize("f", [f for f in CALLED if f.monotone is not Monotone.UNKNOWN], ids=lambda f: f.name)
def test_monotone_in_each_argument(f: Function) -> None:
    sign = 1.0 if f.monotone is Monotone.INCREASING else -1.0
    for a, b in pairs(f):
        for k in range(len(a)):
            if f.name == "clamp" and k:
                continue
            moved = (*a[:k], a[k] + (b[k] - a[k]).abs(), *a[k + 1 :])
            assert bool((sign * (call(f, moved) - call(f, a)) >= -SLACK).all())


@pytest.mark.parametrize("f", [f for f in CALLED if f.curvature is not Curvature.UNKNOWN], ids=lambda f: f.name)
def test_curvature(f: Function) -> None:
    for weight in (0.25, 0.5, 0.9):
        for a, b in pairs(f, count=100):
            between = tuple(weight * x + (1 - weight) * y for x, y in zip(a, b, strict=True))
            left, right = call(f, between), weight * call(f, a) + (1 - weight) * call(f, b)
            tolerance = SLACK * (1 + right.abs())
            if f.curvature in (Curvature.CONVEX, Curvature.AFFINE):
                assert bool((left <= right + tolerance).all())
            if f.curvature in (Curvature.CONCAVE, Curvature.AFFINE):
                assert bool((left >= right - tolerance).all())


@pytest.mark.parametrize("f", [f for f in CALLED if f.elementwise and f.arity == (1, 1)], ids=lambda f: f.name)
def test_smoothness(f: Function) -> None:
    """On a fine grid a jump shows in differences, a kink in second differences."""
    if f.name in ("tan", "reciprocal_or_zero"):  # poles
        assert f.smoothness is (Smoothness.SMOOTH if f.name == "tan" else Smoothness.DISCONTINUOUS)
        return
    step = 1e-5
    x = torch.arange(-1, 1, step, dtype=torch.float64) + (2.0 if f.name in POSITIVE else 0.0)
    y = call(f, (x,))
    first = (y[1:] - y[:-1]).abs().max() / step
    second = (y[2:] - 2 * y[1:-1] + y[:-2]).abs().max() / step
    if f.smoothness is Smoothness.SMOOTH:
        assert float(second) < 0.01
    elif f.smoothness is Smoothness.CONTINUOUS:
        assert float(first) < 10
        assert float(second) > 0.5
    else:
        assert float(first) > 100


def test_no_fact_is_stated_of_what_is_not_called() -> None:
    for name in FIXED & TABLE.keys():
        assert TABLE[name].lipschitz is None
        assert math.isinf(TABLE[name].range.hi)
