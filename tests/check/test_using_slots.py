"""`using`: slots of several sections add up, the layer's fill what a block leaves open, values are checked."""

from __future__ import annotations

import pytest

import implicitdsl as imp
from implicitdsl.checking import check
from implicitdsl.driver import check_source
from implicitdsl.ground.source import Source
from implicitdsl.ir.model import Wishes
from implicitdsl.language import LANGUAGE
from implicitdsl.syntax.parser import parse

TWO = """layer A(n):
  given x in R^n
  {layer}
  find z in R^n such that z = 0.5 tanh(z) + x
  find w in R^n such that w = 0.5 tanh(w) + z
  {block}
  return z, w
"""
FLOW = """layer A(n):
  given x in R^n
  find z(t) in R^n for t in [0, 1] such that dz/dt = tanh(z), z(0) = x
  using {method}
  return z(1)
"""


def wishes(text: str, name: str = "A") -> list[Wishes]:
    source = Source("<string>", text)
    model = check(parse(source).program, source, LANGUAGE).models[name]
    assert not [d for d in check_source(source) if d.is_error]
    return [b.wishes for b in model.blocks]


def methods(text: str) -> list[str | None]:
    return [w.forward.method if w.forward else None for w in wishes(text)]


def test_two_sections_after_a_block_add_up() -> None:
    first, second = wishes(TWO.format(layer="", block="using picard\n  using start zeros, on_failure=nan"))
    assert (first.forward, first.on_failure) == (None, None)
    assert second.forward is not None
    assert (second.forward.method, second.start, second.on_failure) == ("picard", "zeros", "nan")


def test_a_block_overrides_the_layer_slot_by_slot() -> None:
    text = TWO.format(layer="using newton, on_failure=raise", block="using picard, backward unrolled")
    first, second = wishes(text)
    assert first.forward is not None
    assert second.forward is not None
    assert [first.forward.method, second.forward.method] == ["newton", "picard"]
    assert [first.on_failure, second.on_failure] == ["raise", "raise"]
    assert first.backward is None


def test_one_slot_given_twice_is_an_error() -> None:
    for text in (
        TWO.format(layer="", block="using picard\n  using newton"),
        TWO.format(layer="using picard\n  using newton", block=""),
    ):
        (found,) = (d for d in imp.check(text) if d.is_error)
        assert (found.code, found.message) == ("IMP102", "`forward` is given twice")


def test_a_method_for_one_sentence_of_the_layer_leaves_the_others_alone() -> None:
    mixed = """layer A(n):
  given x in R^n
  using dopri5
  find z in R^n such that z = 0.5 tanh(z) + x
  find q(t) in R^n for t in [0, 1] such that dq/dt = -tanh(q), q(0) = z
  return q(1)
"""
    assert methods(mixed) == [None, "dopri5"]
    alone = TWO.format(layer="using dopri5", block="")
    assert [d.code for d in imp.check(alone) if d.is_error] == ["IMP703"]


@pytest.mark.parametrize(
    "method, message",
    [
        ("dopri5(controller=pdi)", "option `controller` of `dopri5` is `i`, `pi` or `pid`, not `pdi`"),
        ("euler(dt=0.1, steps=3)", "`euler` takes `dt` or `steps`, not both"),
        ("dopri5(min_step=0.2, max_step=0.1)", "`min_step` of `dopri5` is above `max_step`: 0.2 > 0.1"),
    ],
    ids=["choice", "both", "order"],
)
def test_values_that_no_method_takes(method: str, message: str) -> None:
    (found,) = (d for d in imp.check(FLOW.format(method=method)) if d.is_error)
    assert (found.code, found.message) == ("IMP704", message)


ROOTS = (
    "direct schur picard anderson broyden newton chord newton_krylov levenberg_marquardt bisection peaceman_rachford"
)
SPECS = {
    "root": ("find z in R^n such that z = tanh(W z + x)", f"{ROOTS} backward_gmres backward_bicgstab"),
    "optimum": ("argmin_{z in R^n} ||z - x||^2 + ||W z||^2", "direct projection ipm riccati conic nlp"),
}


@pytest.mark.parametrize("sentence", SPECS)
def test_every_solver_of_roots_and_programs_takes_a_tolerance_and_a_number_of_iterations(sentence: str) -> None:
    text, names = SPECS[sentence]
    for name in names.split():
        method = name.replace("backward_", "backward ")
        found = imp.check(f"param W in SpectralBall(n, 0.9)\n{text}\nusing {method}(tol=1e-3, max_iter=7)\nreturn z\n")
        assert not [d.message for d in found if d.code.startswith("IMP7")], name
