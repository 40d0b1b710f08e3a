"""What the face raises: errors travel between processes, and a wrong argument is named."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import implicitdsl as imp


def test_errors_of_a_spec_survive_pickle_and_copy() -> None:
    with pytest.raises(imp.SpecError) as caught:
        imp.compile("layer A(n):\n  given x in R^n\n  return y\n")
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert type(again) is imp.SpecError
        assert str(again) == str(caught.value)
        assert [d.code for d in again.diagnostics] == ["IMP101"]
        assert (again.lineno, again.offset) == (3, 10)


def test_a_convergence_error_keeps_its_solution_through_pickle() -> None:
    layer = imp.compile("find z in R such that z = z + 1 + a^2\nusing on_failure=raise\nreturn z")
    with pytest.raises(imp.ConvergenceError) as caught:
        layer(torch.ones(2))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert torch.equal(again.solution.report.converged, torch.tensor([False, False]))


def test_another_shape_from_a_bound_module_is_an_error_of_the_spec_and_of_shapes() -> None:
    layer = imp.compile("layer A(n):\n  given x in R^n\n  fn f: R^n -> R^n\n  return f(x)\n", f=torch.nn.Linear(2, 3))
    with pytest.raises(imp.ShapeError, match=r"IMP209.*f returned") as caught:
        layer(torch.ones(4, 2))
    assert isinstance(caught.value, imp.SpecError)
    assert [d.code for d in caught.value.diagnostics] == ["IMP209"]


@pytest.mark.parametrize("spec", [3, None, b"find z"], ids=["number", "none", "bytes"])
def test_a_spec_is_a_text_or_a_path(spec: Any) -> None:
    for face in (imp.check, imp.compile):
        with pytest.raises(TypeError, match=rf"a spec is a text \(str\) or a file .*, not {type(spec).__name__}"):
            face(spec)


def test_an_empty_spec_has_nothing_to_compile() -> None:
    assert imp.check("# nothing\n") == []
    with pytest.raises(ValueError, match="<string> has no layer: it is empty"):
        imp.compile("# nothing\n")


def test_a_dimension_may_be_a_whole_number_of_numpy() -> None:
    layer = imp.compile("layer A(n):\n  param b in R^n\n  return b\n", n=np.int64(3))
    assert layer.b.shape == (3,)
    with pytest.raises(TypeError, match="whole number"):
        imp.compile("layer A(n):\n  param b in R^n\n  return b\n", n=np.float64(3))


def test_a_solution_unpacks_into_value_and_report() -> None:
    value, report = imp.compile("find z such that z = 0.5 tanh(z) + x").solve(torch.ones(2, 3))
    assert value.shape == (2, 3)
    assert report.converged.all()
