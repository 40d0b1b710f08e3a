"""When an integrator suits: the ladder's conditions and reasons, in terms of facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.methods import Verdict

Facts = Mapping[str, Fact]
Sizes = Mapping[str, int | None]


DENSE, OPAQUE = 256, 64
"""Up to so many states a step may factor the Jacobian; of a bound function it costs a product a state."""


EXPONENTIAL = 512
"""Up to so many states a matrix exponential is cheaper than steps."""


def value(facts: Facts, name: str) -> Any:
    """A fact's value; None where it is unknown."""
    found = facts.get(name)
    return None if found is None else found.value


def expm(facts: Facts, sizes: Sizes) -> Verdict:
    n, form = state_size(facts, sizes), value(facts, "evolution")
    if not value(facts, "linear") or value(facts, "opaque"):
        return False, "the equation is not linear with constant coefficients"
    if form is not None and form.events:
        return False, "an event ends the integration"
    if n is not None and n > EXPONENTIAL:
        return False, f"the exponential of a {n} × {n} matrix is too much"
    return True, "linear with constant coefficients: one matrix exponential, exact to rounding, stiff or not"


def dopri5(facts: Facts, sizes: Sizes) -> Verdict:
    return True, "explicit of order 5 with steps of its own for each sample, until a sample proves stiff"


def state_size(facts: Facts, sizes: Sizes) -> int | None:
    """The number of entries of the state, where the sizes are known."""
    dim = value(facts, "size")
    known = {name: size for name, size in sizes.items() if size is not None}
    return dim.evaluate(known) if dim is not None and dim.names <= known.keys() else None


def rodas5p(facts: Facts, sizes: Sizes) -> Verdict:
    n = state_size(facts, sizes)
    if n is not None and n > (OPAQUE if value(facts, "opaque") else DENSE):
        return False, f"a factorisation of the Jacobian of {n} states a step is too much"
    how = "by products" if value(facts, "opaque") else "in closed form where there is one"
    return True, f"Rosenbrock of order 5, one LU a step with the Jacobian {how}"


def checkpointed(facts: Facts, sizes: Sizes) -> Verdict:
    return True, "discrete adjoint over the steps taken: the exact gradient of what was computed"
