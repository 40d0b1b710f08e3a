"""Numbers of bare programs: what convexity takes for granted stands in the completed spec."""

from __future__ import annotations

import pickle

import pytest

import implicitdsl as imp


@pytest.mark.parametrize(
    "text, signs",
    [
        ("argmin_z ||z - y||^2 + lam ||z||_1", {"lam": "nonneg"}),
        ("argmin_z ||z - y||^2 + c z[0] + lam ||z||^2", {"c": "R", "lam": "nonneg"}),
        ("argmin_z ||z - y||^2 + lam ||z||_1\nusing nlp()", {"lam": "R"}),
        ("find z such that z = 0.1 a tanh(W z) + x", {"a": "R"}),
    ],
    ids=["kink", "two", "local", "root"],
)
def test_the_completed_spec_states_the_sign_and_checks(text: str, signs: dict[str, str]) -> None:
    said = [d.message for d in imp.check(text) if d.code == "IMP120"]
    layer = imp.compile(text)
    for name, kind in signs.items():
        assert f"{name} in {kind}\n" in repr(layer)
        assert f"`{name}` is taken as an input, `given {name} in {kind}`" in said
    assert not [d for d in imp.check(repr(layer)) if d.is_error]
    assert repr(pickle.loads(pickle.dumps(layer))) == repr(layer)
