"""Right specs: no errors, and the models that they stand for."""

from __future__ import annotations

import pytest
from right_specs import BARE, DECLARED

from implicitdsl.checking import check
from implicitdsl.checking.complete import complete
from implicitdsl.driver import check_source
from implicitdsl.ground.source import Source
from implicitdsl.ir.dump import dump
from implicitdsl.ir.model import Model
from implicitdsl.language import LANGUAGE
from implicitdsl.syntax.parser import parse


def checked(text: str):
    source = Source("<string>", text)
    parsed = parse(source)
    assert not parsed.diagnostics
    return parsed.program, check(parsed.program, source, LANGUAGE)


def meaning(model: Model) -> str:
    """A model's text without the marks of defaults and the order of its dimensions, which differ by intent."""
    return dump(model).replace(" (filled in)", "").split("\n", 1)[1]


@pytest.mark.parametrize("name", BARE | DECLARED)
def test_no_errors(name: str) -> None:
    _, result = checked((BARE | DECLARED)[name])
    assert [d for d in result.diagnostics if d.is_error] == []


@pytest.mark.parametrize("name", BARE)
def test_completed_spec_says_the_same_and_leaves_nothing_open(name: str) -> None:
    program, result = checked(BARE[name])
    text = complete(program.layers[0], result.models[""])
    _, again = checked(text)
    assert [d for d in again.diagnostics if d.code == "IMP120"] == []
    assert meaning(again.models[""]) == meaning(result.models[""])


def test_bare_tanh_layer() -> None:
    _, result = checked("find z such that z = tanh(W z + x)")
    model = result.models[""]
    assert [(g.name, g.set.text) for g in model.givens] == [("x", "R^n")]
    assert [(p.name, p.set.text) for p in model.params] == [("W", "R^(n, n)")]
    assert {d.code for d in result.diagnostics} == {"IMP120"}


def test_bare_quadratic_is_psd() -> None:
    _, result = checked(BARE["qp"])
    assert {p.name: p.set.name for p in result.models[""].params} == {"Q": "PSD", "G": "R"}


def test_scalar_only_where_only_a_scalar_fits() -> None:
    _, result = checked("find z in R^n such that z = tanh(a W z + x)")
    shapes = {g.name: len(g.set.shape) for g in result.models[""].givens}
    assert shapes == {"a": 0, "x": 1}


def test_outputs_are_named_and_numbered() -> None:
    text = (
        "layer A(n):\n  given x in R^n\n  fn f: R^n -> R^n\n"
        "  find z(t) in R^n for t in [0, 1] such that dz/dt = f(z), z(0) = x\n"
    )
    _, result = checked(text + "  return z(1), z(0.5), y = 2 x\n")
    assert [o.name for o in result.models["A"].outputs] == ["z", "z_1", "y"]


def test_blocks_are_ordered_by_dependency() -> None:
    text = (
        "layer A(n):\n  given x in R^n\n  param W in SpectralBall(n, 0.5)\n"
        "  find v in R^n such that v = tanh(W v + u)\n  find u in R^n such that u = tanh(W u + x)\n  return v\n"
    )
    _, result = checked(text)
    assert [b.unknowns[0].name for b in result.models["A"].blocks] == ["u", "v"]


@pytest.mark.parametrize("size", ["2 n", "2n", "2 * n", "n + n", "(n + 1) + n - 1"])
def test_sizes_are_sums_and_products_of_dimensions(size: str) -> None:
    text = f"layer A(n, m):\n  given x in R^m\n  return y = concat(x, zeros({size}))"
    _, result = checked(text)
    assert [d for d in result.diagnostics if d.is_error] == []
    assert [str(d) for d in result.models["A"].outputs[0].expr.shape] == ["m + 2 n"]


def test_coefficients_of_scalar_dynamics_are_scalars() -> None:
    _, result = checked(BARE["pde"])
    assert {g.name: g.set.text for g in result.models[""].givens} == {"nu": "R", "u0": "R^N"}


def test_least_squares_may_have_any_number_of_equations() -> None:
    text = "layer A(n, m):\n  given b in R^m\n  param M in R^(m, n)\n  find z in R^n such that M z = b\n"
    assert [d.code for d in checked(text)[1].diagnostics if d.is_error] == ["IMP301"]
    assert not any(d.is_error for d in checked(text + "  using levenberg_marquardt\n")[1].diagnostics)


def test_places_are_those_of_the_text_at_hand() -> None:
    first = "layer A(n):\n  given x in R^n\n  param W in R^(n, n)\n  find z in R^n such that z = relu(W z + x)\n"
    kept = check_source(Source("first", first))
    second = "# a longer text\n" * 3 + first
    found = check_source(Source("second", second))
    places = [(d.line, d.column) for d in found if d.code == "IMP403"]
    assert places == [(7, 31)]
    assert [(d.line, d.column) for d in kept if d.code == "IMP403"] == [(4, 31)]
