"""Initial values outside their sets are found without tensors, for whatever dimensions (IMP107)."""

from __future__ import annotations

import pytest

import implicitdsl as imp
from implicitdsl.checking.membership import matrix_lies_in

SPEC = """layer A(n):
  given x in R^n
  param W in {}
  return sum(W) x
"""


def codes(item: str) -> list[str]:
    return [d.code for d in imp.check(SPEC.format(item)) if d.is_error]


@pytest.mark.parametrize(
    "item",
    [
        "PD(n) = zeros",
        "PSD(n) = -1",
        "PSD(2) = [[1, 2], [2, 1]]",
        "PD(2) = [[1, 1], [1, 1]]",
        "Sym(2) = [[1, 2], [3, 1]]",
        "Skew(n) = eye",
        "Orth(n) = zeros",
        "Orth(2) = [[1, 0], [0, 2]]",
        "Stiefel(n, 2) = zeros",
        "SpectralBall(n, 0.9) = eye",
        "SpectralBall(n, 0.9) = 2",
        "SpectralBall(2, 1) = [[1, 1], [0, 1]]",
        "Monotone(n, 0.5) = eye",
        "simplex(n) = zeros",
        "simplex(3) = ones",
        "sphere(n) = zeros",
        "ball(3, 1) = ones",
        "[0, 1]^n = uniform(0, 2)",
    ],
)
def test_outside(item: str) -> None:
    assert codes(item) == ["IMP107"]


@pytest.mark.parametrize(
    "item",
    [
        "PSD(n) = zeros",
        "PSD(2) = [[1, 1], [1, 1]]",
        "PD(n) = eye",
        "Skew(n) = zeros",
        "Orth(2) = [[0, 1], [-1, 0]]",
        "SpectralBall(2, 1) = [[0, 1], [1, 0]]",
        "SpectralBall(n, 0.9) = 0.1",
        "Monotone(n, 0.5) = zeros",
        "simplex(n) = ones",
        "simplex(4) = 1/4",
        "ball(n, 1) = 1",
        "(0, 1)^n = uniform(0.1, 0.9)",
        "positive^n = uniform(1, 2)",
    ],
)
def test_inside_or_perhaps_inside(item: str) -> None:
    assert codes(item) == []


@pytest.mark.parametrize("item", ["R^n = normal(0, -1)", "R^n = uniform(2, 1)"])
def test_distributions_that_are_none(item: str) -> None:
    assert codes(item) == ["IMP704"]


def test_a_uniform_start_in_an_interval_is_drawn_from_it() -> None:
    layer = imp.compile(SPEC.format("(0, 1)^n = uniform(0.4, 0.6)"), n=50)
    assert ((layer.W > 0.399) & (layer.W < 0.601)).all()


@pytest.mark.parametrize("name", ["Sym", "Skew", "PSD", "PD", "Orth", "SpectralBall", "Monotone"])
def test_the_same_verdict_as_with_tensors(name: str) -> None:
    import torch

    from implicitdsl.lowering import sets

    kind = getattr(sets, name)
    args = {"SpectralBall": (0.9,), "Monotone": (0.3,)}.get(name, ())
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3):
        for _ in range(30):
            a = torch.randint(-2, 3, (n, n), generator=generator).double()
            for b in (a, a + a.mT, a @ a.mT, a - a.mT, 0.3 * a, torch.linalg.qr(a + 0.1)[0]):
                assert matrix_lies_in(name, args, b.tolist()) == bool(kind((n, n), *args).contains(b)), b
