"""Every set at a small size, by its name in the IR."""

from __future__ import annotations

import math

import pytest

from implicitdsl.lowering.sets import NAMES, Parametrization, make

CASES: dict[str, tuple[str, tuple[int, ...], tuple[float, ...]]] = {
    "R": ("R", (3, 4), ()),
    "positive": ("positive", (5,), ()),
    "positive matrix": ("positive", (3, 4), ()),
    "nonneg": ("nonneg", (), ()),
    "nonneg matrix": ("nonneg", (3, 4), ()),
    "(0, 1)": ("open", (3,), (0.0, 1.0)),
    "(-2, 100)": ("open", (3, 4), (-2.0, 100.0)),
    "[0, 1]": ("closed", (3, 4), (0.0, 1.0)),
    "[-3, 0.1]": ("closed", (4,), (-3.0, 0.1)),
    "[-3, -1]": ("closed", (), (-3.0, -1.0)),
    "(-2, inf)": ("open", (3, 4), (-2.0, math.inf)),
    "(-inf, 0.1)": ("open", (), (-math.inf, 0.1)),
    "[3, inf]": ("closed", (4,), (3.0, math.inf)),
    "[-inf, 1]": ("closed", (3, 4), (-math.inf, 1.0)),
    "simplex": ("simplex", (5,), ()),
    "simplex^2": ("simplex", (2, 5), ()),
    "ball": ("ball", (4,), (1.5,)),
    "sphere": ("sphere", (4,), ()),
    "PSD": ("PSD", (4, 4), ()),
    "PD": ("PD", (4, 4), ()),
    "Sym": ("Sym", (4, 4), ()),
    "Skew": ("Skew", (4, 4), ()),
    "Orth": ("Orth", (4, 4), ()),
    "Stiefel": ("Stiefel", (5, 3), ()),
    "SpectralBall": ("SpectralBall", (4, 4), (0.9,)),
    "SpectralBall^2": ("SpectralBall", (2, 3, 3), (0.9,)),
    "Monotone": ("Monotone", (4, 4), (0.2,)),
}

assert {name for name, _, _ in CASES.values()} == set(NAMES)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def a_set(request: pytest.FixtureRequest) -> Parametrization:
    name, shape, args = request.param
    return make(name, shape, args)
