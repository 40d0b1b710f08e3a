"""Equal forms: squared norms and transposes of symmetric matrices."""

from __future__ import annotations

import pytest
from hand_built import SQUARE, equation, f, in_set, model, param, root, z

from implicitdsl.analysis import diagnose, squared_norms, symmetric
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num, power, transpose
from implicitdsl.ir.nodes import Role, sym
from implicitdsl.ir.nodes import num as number
from implicitdsl.ir.printer import show
from implicitdsl.language import LANGUAGE
from implicitdsl.planner import analyse_model

NORM = f("norm", z.node)


@pytest.mark.parametrize(
    "exponent, shown",
    [(2.0, "z^T z"), (4.0, "(z^T z)^2"), (3.0, "||z||^3"), (-2.0, "||z||^-2"), (1.0, "||z||")],
)
def test_even_powers_of_a_norm_are_smooth(exponent: float, shown: str) -> None:
    assert show(squared_norms(power(NORM, num(exponent)))) == shown


def test_squares_of_absolute_values_are_squares() -> None:
    assert squared_norms(power(f("abs", z.node), num(2.0))) is power(z.node, num(2.0))


@pytest.mark.parametrize("name, sign", [("PSD", 1.0), ("Sym", 1.0), ("PD", 1.0), ("Skew", -1.0)])
def test_transposes_of_symmetric_and_skew_matrices(name: str, sign: float) -> None:
    Q = param("Q", in_set(name, f"{name}(n)", SQUARE))
    e = matmul(transpose(Q.node), z.node)
    assert symmetric(e, {Q.node: Q.set}) is mul(number(sign), matmul(Q.node, z.node))
    assert symmetric(e, {}) is e


def test_energies_with_squared_norms_have_no_kink() -> None:
    Q = param("Q", in_set("PD", "PD(n)", SQUARE))
    bound = sym("z~1", Role.BOUND, z.shape)
    energy = add(mul(num(0.5), matmul(bound, matmul(Q.node, bound))), power(f("norm", bound), num(2.0)))
    block = root([z], [equation(build.grad(energy, bound, z.node), build.zeros(z.shape))])
    analysis = analyse_model(model([block], Q), LANGUAGE)
    assert diagnose(analysis) == []
    assert analysis.blocks[0].system is not None
    assert show(analysis.blocks[0].system.residual[0]) == "2 z + Q z"
    assert analysis.blocks[0].value("affine") == "dense"


def test_no_module_hides_what_the_room_hands_out() -> None:
    """Importing a submodule binds its name in the room: it must not be that of a function."""
    import importlib
    import pkgutil

    import implicitdsl.analysis as room

    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"{room.__name__}.{module.name}")
    for name in room.__all__:
        assert not isinstance(getattr(room, name), type(room)), name
