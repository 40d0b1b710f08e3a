"""Explanations of whole specs, from their text: golden files, and every spec of the language in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from right_specs import BARE, DECLARED

import implicitdsl as imp
from implicitdsl.explanation import FORMATS

SPECS = {**BARE, **DECLARED}
EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = {"deq": "txt", "system": "txt", "root": "md", "fixed_point": "tex"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    form = {"txt": "text", "md": "markdown", "tex": "latex"}[GOLDEN[name]]
    golden(f"explain/{name}.{GOLDEN[name]}", imp.explain(SPECS[name], format=form))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SPECS)
def test_every_spec_is_explained(name: str, form: str) -> None:
    text = imp.explain(SPECS[name], format=form)
    assert "Outputs" in text
    assert "~" not in text.replace(r"\textasciitilde", "")  # names that the compiler made unique
    if form == "latex":
        assert text.replace("\N{COMBINING MACRON}", "").isascii()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("file", sorted(f.relative_to(EXAMPLES).as_posix() for f in EXAMPLES.glob("*/*.imp")))
def test_every_example_is_explained(file: str, form: str) -> None:
    text = imp.explain(EXAMPLES / file, format=form)
    assert "Outputs" in text
    assert "Expr" not in text


def test_gradients_of_optima_have_second_derivatives_by_name() -> None:
    text = imp.explain("given x in R^n\nargmin_{u in R} sum(softplus(u - x) - (u - x) / 2)")
    assert "softplus''(u - x)" in text
    assert "softplus''(s) = sigmoid(s) (1 - sigmoid(s))" in text
