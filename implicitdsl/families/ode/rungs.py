"""When an integrator suits: the ladder's conditions and reasons, in terms of facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.methods import Verdict

Facts = Mapping[str, Fact]
Sizes = Mapping[str, int | None]


def value(facts: Facts, name: str) -> Any:
    """A fact's value; None where it is unknown."""
    found = facts.get(name)
    return None if found is None else found.value


def dopri5(facts: Facts, sizes: Sizes) -> Verdict:
    return True, "explicit of order 5 with steps of its own for each sample, until a sample proves stiff"


def checkpointed(facts: Facts, sizes: Sizes) -> Verdict:
    return True, "discrete adjoint over the steps taken: the exact gradient of what was computed"
