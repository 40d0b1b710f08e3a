"""When a root solver suits: the ladder's conditions and prices, in terms of facts.

A price is an estimate of the time for 32 samples in µs, from measurements of this package's loops on one core in
float32 (z = tanh(W z + x) with ‖W‖₂ = 0.9): 25 µs and 2 n² flops a sample for a Picard step, 330 µs and 2/3 n³ for a
Newton step, at 5e4 flops/µs in products and 4e3 in batched factorisations. Only the order of prices matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.methods import Verdict

SAMPLES = 32
PICARD_STEP, NEWTON_STEP = 25.0, 330.0
PRODUCT, FACTOR = 5e4, 4e3
NEWTON_STEPS = 5
TYPICAL = 0.6
"""Steps taken as a part of those that the certified rate allows: a bound on the slope is rarely attained."""
TOLERANCE = 1e-6

DENSE = 256
"""Up to this many unknown numbers a dense Jacobian is factored at every Newton step."""
DENSE_OPAQUE = 64
"""The same where a bound function makes the Jacobian cost one JVP a column."""
DENSE_ONCE = 2048
"""Up to here one factorisation (affine equations, the backward system) is affordable."""
SMALL = 256
"""Up to this many unknown numbers a dense factorisation is faster than two Schur forms."""
SLOW = 0.98
"""From this rate on plain iteration is slower than its acceleration."""

TRIAL = (42, 84)
"""A trial of plain iteration without a certificate is worth it for at least, and takes at most, so many steps.

Multiples of 42: compiled loops test their rows every 2, 3 or 7 steps, or more often where that does not divide a limit.
"""

Facts = Mapping[str, Fact]
Sizes = Mapping[str, int | None]


def value(facts: Facts, name: str) -> Any:
    """A fact's value; None where it is unknown."""
    found = facts.get(name)
    return None if found is None else found.value


def state_size(facts: Facts, sizes: Sizes) -> int | None:
    """The number of unknown numbers, where the sizes are known."""
    dim = value(facts, "size")
    known = {name: size for name, size in sizes.items() if size is not None}
    return dim.evaluate(known) if dim is not None and dim.names <= known.keys() else None


def picard_steps(rate: float) -> int:
    """Iterations to the tolerance at a rate."""
    return 1 if rate <= TOLERANCE else math.ceil(math.log(TOLERANCE) / math.log(rate))


def picard_price(n: int, rate: float) -> float:
    return TYPICAL * picard_steps(rate) * picard_step_price(n)


def picard_step_price(n: int) -> float:
    return PICARD_STEP + SAMPLES * 2 * n**2 / PRODUCT


def newton_price(n: int) -> float:
    return NEWTON_STEPS * (NEWTON_STEP + SAMPLES * 2 / 3 * n**3 / FACTOR)


def _name(facts: Facts) -> str:
    return str(value(facts, "size"))


def _affine(facts: Facts) -> bool:
    return value(facts, "affine") is not None


def direct(facts: Facts, sizes: Sizes) -> Verdict:
    kind = value(facts, "affine")
    if kind is None:
        return False, "the equations are not affine in the unknowns"
    n = state_size(facts, sizes)
    if schur(facts, sizes)[0] and n is not None:
        return False, "affine, but two Schur forms cost less than one dense factorisation"
    if kind == "diagonal":
        return True, "affine with a diagonal coefficient: one division solves it, whatever its contraction rate"
    if n is None or n <= DENSE_ONCE:
        return True, "affine in the unknowns: one factorisation solves it, whatever its contraction rate"
    return False, f"affine, but a dense factorisation of {n} unknowns is too large"


def schur(facts: Facts, sizes: Sizes) -> Verdict:
    if value(facts, "affine") != "sylvester":
        return False, "no matrix unknown between matrices"
    n = state_size(facts, sizes)
    if n is None:
        return True, f"Schur forms of the two matrices where {_name(facts)} > {SMALL}: O(n³), a dense factor is O(n⁶)"
    if n <= SMALL:
        return False, f"{n} unknowns are few enough for one dense factorisation"
    return True, "Schur forms of the two matrices solve it: O(n³), where a dense factorisation is O(n⁶)"


def bisection(facts: Facts, sizes: Sizes) -> Verdict:
    ends, elementwise = value(facts, "bracket"), value(facts, "elementwise")
    if ends is None or elementwise is None or _affine(facts):
        return False, "no bounded interval is known that holds the root"
    if len(facts["bracket"].proof) < 2:
        return False, "a sign change over the interval is not proved"
    return True, f"every entry changes sign over [{ends.lo:g}, {ends.hi:g}], so it cannot fail"


def bracketing(facts: Facts, sizes: Sizes) -> Verdict:
    if value(facts, "elementwise") is None or _affine(facts):
        return False, "not one equation for each unknown"
    if value(facts, "bracket") is not None:
        return True, "halves the interval wherever the equation has opposite signs at its ends"
    return True, "looks outwards for a change of sign, which a slope that vanishes cannot prevent"


def picard(facts: Facts, sizes: Sizes) -> Verdict:
    rate = value(facts, "contraction")
    if rate is None and not _affine(facts):
        return picard_trial(facts, sizes)
    if rate is None or _affine(facts):
        return False, "affine: one factorisation is enough"
    if rate >= SLOW:
        return False, f"contracts, but its rate {rate:.6g} is slow"
    n, steps = state_size(facts, sizes), picard_steps(rate)
    promise = f"contracts with rate {rate:.6g}: at most {steps} cheap steps to {TOLERANCE:g}"
    if n is None:
        return True, f"{promise}; {_name(facts)} is not known yet, Newton may be cheaper where it is small"
    mine, other = picard_price(n, rate), newton_price(n)
    if value(facts, "opaque") is None and other < mine:
        return False, f"{promise}, but a few Newton steps are cheaper at {n} unknowns"
    return True, f"{promise}, cheaper than factoring {n} × {n} Jacobians"


def picard_trial(facts: Facts, sizes: Sizes) -> Verdict:
    """Without a certificate: as many steps as cost half of Newton's, where those are worth trying first."""
    none = "no contraction is proved"
    n = state_size(facts, sizes)
    if n is None or n > _limit(facts) or value(facts, "elementwise") or value(facts, "monotone") is not None:
        return False, none
    if _no_step(facts) or value(facts, "bracket") is not None:
        return False, none
    steps = min(TRIAL[1], int(newton_price(n) / 2 / picard_step_price(n)) // TRIAL[0] * TRIAL[0])
    if steps < TRIAL[0]:
        return False, none
    why = f"{none}, but {steps} plain steps cost less than factoring {n} × {n} Jacobians: tried first"
    return True, why, (("max_iter", steps),)


def peaceman_rachford(facts: Facts, sizes: Sizes) -> Verdict:
    margin = value(facts, "monotone")
    if margin is None:
        return False, "no monotone margin is proved"
    if value(facts, "contraction") is not None or _affine(facts):
        return False, "monotone, but a simpler certificate is at hand"
    n = state_size(facts, sizes)
    if n is not None and n > DENSE_ONCE:
        return False, f"monotone, but its factor of {n} unknowns is too large"
    return True, f"strongly monotone with margin {margin:.6g}: converges from every start, with one factorisation"


def newton(facts: Facts, sizes: Sizes) -> Verdict:
    if _affine(facts):
        return False, "affine: one factorisation is enough"
    if value(facts, "elementwise"):
        return True, "every entry is a scalar equation: safeguarded Newton steps by division"
    limit, n = _limit(facts), state_size(facts, sizes)
    why = "no certificate is needed: quadratic convergence, globalised by a line search"
    if n is None:
        return True, f"{_name(facts)} is not known yet; Newton while {_name(facts)} ≤ {limit}; {why}"
    if n > limit:
        return False, f"{n} unknowns are too many for dense Newton steps (limit {limit})"
    return True, f"{n} unknowns: {why}"


def _limit(facts: Facts) -> int:
    """Up to how many unknown numbers a dense Jacobian a step is affordable."""
    return DENSE if value(facts, "opaque") is None else DENSE_OPAQUE


def levenberg_marquardt(facts: Facts, sizes: Sizes) -> Verdict:
    if _affine(facts) or value(facts, "elementwise"):
        return False, "not needed for affine or scalar equations"
    n = state_size(facts, sizes)
    if n is not None and n > _limit(facts):
        return False, f"{n} unknowns are too many for dense steps"
    return True, "damped steps go on where the Jacobian is nearly singular"


def _large(facts: Facts, sizes: Sizes, what: str) -> Verdict:
    if _affine(facts) and state_size(facts, sizes) is None:
        return False, "affine: one factorisation is enough"
    n = state_size(facts, sizes)
    if n is None:
        return True, f"{what}, where {_name(facts)} turns out large"
    if n <= DENSE_OPAQUE or (_affine(facts) and n <= DENSE_ONCE):
        return False, f"{n} unknowns are few enough for dense steps"
    return True, f"{n} unknowns: {what}"


def anderson(facts: Facts, sizes: Sizes) -> Verdict:
    if value(facts, "lipschitz") is None and _no_step(facts):
        return False, "an equation does not read u = g(…)"
    if _affine(facts):
        return False, "affine: a linear solver is better"
    rate = value(facts, "contraction")
    if rate is not None and rate >= SLOW:
        return True, f"contracts with the slow rate {rate:.6g}: accelerated iteration"
    n = state_size(facts, sizes)
    if n is not None and n <= DENSE_OPAQUE and rate is None and value(facts, "existence"):
        # ‖F‖ may have minima that are no roots, where descent ends; the map itself has no such thing
        return True, "the map keeps to a bounded set: accelerated iteration of it needs no descent", (("depth", 2),)
    return _large(facts, sizes, "accelerated fixed-point iteration needs no Jacobian")


def _no_step(facts: Facts) -> bool:
    return value(facts, "range") is None


def broyden(facts: Facts, sizes: Sizes) -> Verdict:
    if _affine(facts):
        return False, "affine: a linear solver is better"
    return _large(facts, sizes, "limited-memory quasi-Newton needs no Jacobian")


def newton_krylov(facts: Facts, sizes: Sizes) -> Verdict:
    return _large(facts, sizes, "Newton steps solved by GMRES need only Jacobian-vector products")


def implicit(facts: Facts, sizes: Sizes) -> Verdict:
    n = state_size(facts, sizes)
    rule = "implicit function theorem"
    if schur(facts, sizes)[0]:
        return True, f"{rule}: the transposed equation, by the same Schur forms"
    if value(facts, "elementwise") or value(facts, "affine") == "diagonal":
        return True, f"{rule}: the Jacobian is diagonal, one division"
    if n is None:
        return True, f"{rule}: one transposed solve with an LU of the Jacobian while {_name(facts)} ≤ {DENSE_ONCE}"
    if n > DENSE_ONCE or (value(facts, "opaque") is not None and n > DENSE):
        return False, f"{n} unknowns are too many for a dense Jacobian"
    return True, f"{rule}: one transposed solve with an LU of the {n} × {n} Jacobian"


def gmres(facts: Facts, sizes: Sizes) -> Verdict:
    n = state_size(facts, sizes)
    how_many = "the" if n is None else str(n)
    return True, (
        f"implicit function theorem: GMRES with vector-Jacobian products, {how_many} unknowns need no matrix; beside "
        "picard the adjoint's own iteration comes first"
    )
