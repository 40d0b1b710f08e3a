"""When `dz/dt` is a derivative and when a quotient."""

from __future__ import annotations

import pytest
from forms import codes, read, relation_forms, sections

from implicitdsl.syntax import ast

HEADER = "layer L(n):\n  find z(t) in R, q(t) in R, u(x, t) in R, d(t) in R for t in [0, 1] for x in [0, 1] such that "


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("dz/dt = 1", "{d1 z t} = 1"),
        ("dz / dt = 1", "{/ dz dt} = 1"),
        ("dz/ dt = 1", "{/ dz dt} = 1"),
        ("delta/dt = 1", "{/ delta dt} = 1"),
        ("dz/ds = 1", "{/ dz ds} = 1"),
        ("d²q/dt² = -g", "{d2 q t} = {neg g}"),
        ("d2q/dt2 = -g", "{d2 q t} = {neg g}"),
        ("d^2q/dt^2 = -g", "{d2 q t} = {neg g}"),
        ("d³q/dt³ = 1", "{d3 q t} = 1"),
        ("d²q/dt = 1", "{/ {juxt {^ d 2} q} dt} = 1"),
        ("dq/dt(0) = 0", "{call {d1 q t} 0} = 0"),
        ("dq/dt (0) = 0", "{juxt {d1 q t} (0)} = 0"),
        ("∂u/∂t + u ∂u/∂x = nu ∂²u/∂x²", "{+ {∂1 u t} {juxt u {∂1 u x}}} = {juxt nu {∂2 u x}}"),
        ("∂2u/∂x2 = 1", "{∂2 u x} = 1"),
        ("du/dx = 1", "{d1 u x} = 1"),
        ("a*dz/dt = 1", "{* a {d1 z t}} = 1"),
        ("2dz/dt = 1", "{juxt 2 {d1 z t}} = 1"),
        ("z = x dz/dt^2", "z = {/ {juxt x dz} {^ dt 2}}"),
        ("dd/dt = 1", "{d1 d t} = 1"),
        ("dz = f(z, t) dt + g(z, t) dW", "dz = {+ {juxt {call f z t} dt} {juxt {call g z t} dW}}"),
    ],
)
def test_of_unknowns(text: str, wanted: str) -> None:
    assert relation_forms(HEADER + text) == [wanted]


def test_in_every_section_of_the_layer() -> None:
    text = (
        "layer L:\n where v = dz/dt\n find z(t) for t in [0, 1] such that dz/dt = 1\n return dz/dt(1)\n"
        "layer M:\n where v = dz/dt\n return v"
    )
    first, second = read(text).program.layers
    assert isinstance(first.sections[0], ast.Where)
    assert isinstance(first.sections[0].items[0].body, ast.Derivative)
    assert isinstance(second.sections[0], ast.Where)
    assert isinstance(second.sections[0].items[0].body, ast.Binary)


def test_other_names_with_partial_are_for_the_checker() -> None:
    assert relation_forms("find z such that z = ∂w/∂s") == ["z = {∂1 w s}"]
    assert codes("find z such that z = ∂ w") == ["IMP004"]
    assert codes("find u(x, y) for x in [0, 1] for y in [0, 1] such that ∂²u/∂x∂y = 0") == ["IMP004"]


# -- texts without `layer` -------------------------------------------------------------------------------------------


def test_a_bare_derivative_is_a_program() -> None:
    (section,) = sections("dz/dt = f(z, t)")
    assert isinstance(section, ast.Find)
    assert section.bare
    assert (section.unknowns, section.domains) == ((), ())
    assert relation_forms("dz/dt = f(z, t)") == ["{d1 z t} = {call f z t}"]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("d²q/dt² = -q", ["{d2 q t} = {neg q}"]),
        ("dx/dt = v\ndv/dt = -x", ["{d1 x t} = v", "{d1 v t} = {neg x}"]),
        ("dx/dt = v, dv/dt = -x dx/dt", ["{d1 x t} = v", "{d1 v t} = {juxt {neg x} {d1 x t}}"]),
        ("m dv/dt = -g", ["{juxt m {d1 v t}} = {neg g}"]),
        ("given z0 in R^n\nparam W in R^(n, n)\ndz/dt = W z", ["{d1 z t} = {juxt W z}"]),
        ("where A = B^T B\ndz/dt = A z\nusing dopri5\nreturn z(1)", ["{d1 z t} = {juxt A z}"]),
        ("find z such that dz/dt = f(z)", ["{d1 z t} = {call f z}"]),
        ("∂u/∂t = ∂²u/∂x²", ["{∂1 u t} = {∂2 u x}"]),
    ],
)
def test_bare_texts(text: str, wanted: list[str]) -> None:
    assert relation_forms(text) == wanted


def test_a_declared_name_is_no_derivative() -> None:
    assert relation_forms("given delta, dt in R\nfind z such that delta/dt = z") == ["{/ delta dt} = z"]
    (section,) = sections("where delta = 1\n h = delta/dt")
    assert isinstance(section, ast.Where)


def test_under_a_header_a_relation_needs_a_sentence() -> None:
    assert codes("layer A:\n dz/dt = z") == ["IMP004"]
