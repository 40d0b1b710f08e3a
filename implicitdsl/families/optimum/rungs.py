"""When an optimisation method suits: the ladder's conditions, in terms of facts. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.methods import Verdict

Facts = Mapping[str, Fact]
LONG, LONGER = 400, 550
"""From so many unknowns on a recursion over the stages is faster than dense matrices, with inequalities and without."""
Sizes = Mapping[str, int | None]


def value(facts: Facts, name: str) -> Any:
    """A fact's value; None where it is unknown."""
    found = facts.get(name)
    return None if found is None else found.value


def is_polynomial(facts: Facts) -> bool:
    """Whether the objective is quadratic (or linear) and what constraints hold is affine, in cones of any kind."""
    return value(facts, "objective") in ("linear", "quadratic") and value(facts, "affine") is True


def is_quadratic(facts: Facts) -> bool:
    """Whether it is a quadratic (or linear) program."""
    return is_polynomial(facts) and not value(facts, "definite") and not value(facts, "second")


def why_not(facts: Facts) -> str:
    """What keeps it from being one."""
    if value(facts, "objective") not in ("linear", "quadratic"):
        return facts["objective"].proof[0]
    if value(facts, "affine") is not True:
        return facts["affine"].proof[0]
    return "a matrix inequality" if value(facts, "definite") else facts["second"].proof[0]


def projection(facts: Facts, sizes: Sizes) -> Verdict:
    if value(facts, "nearest") is not None:
        return True, f"{facts['nearest'].proof[0]}: closed form"
    if value(facts, "separable") is None:
        found = facts.get("separable")
        return False, found.proof[0] if found is not None else "not separable"
    row = " and one row that couples them" if value(facts, "separable").coupling is not None else ""
    return True, f"entries with bounds of their own{row}: closed form, by a sort of breakpoints"


def stages(facts: Facts) -> str:
    """What keeps a program from being one over a horizon; empty where it is."""
    if not is_quadratic(facts):
        return why_not(facts)
    if value(facts, "horizon") is not None:
        return ""
    found = facts.get("horizon")
    return found.proof[0] if found is not None else "no constraint gives a state at i + 1 by what there is at i"


def riccati(facts: Facts, sizes: Sizes) -> Verdict:
    reason = stages(facts)
    if reason:
        return False, reason
    steps, total = value(facts, "horizon").steps, value(facts, "size")
    try:
        known = {name: size for name, size in sizes.items() if size is not None}
        count, least = total.evaluate(known), LONG if value(facts, "inequalities").value != 0 else LONGER
    except KeyError:
        return False, f"for {total} unknowns of unknown size"
    if count < least:
        return False, f"{count} unknowns are few enough for dense matrices"
    kind = "with" if value(facts, "inequalities").value != 0 else "without"
    proof = facts["horizon"].proof[0]
    return True, f"a horizon of {steps} steps, {kind} inequalities, where {proof}: Riccati's recursion"


def direct(facts: Facts, sizes: Sizes) -> Verdict:
    if not is_quadratic(facts):
        return False, why_not(facts)
    if value(facts, "inequalities").value != 0:
        return False, "there are inequalities"
    if value(facts, "equalities").value == 0:
        return True, "a quadratic objective without constraints: one Cholesky factorisation"
    return True, "a quadratic objective with affine equalities only: the KKT conditions are one linear system"


def ipm(facts: Facts, sizes: Sizes) -> Verdict:
    if not is_quadratic(facts):
        return False, why_not(facts)
    kind = "linear" if value(facts, "objective") == "linear" else "convex quadratic"
    rows = value(facts, "inequalities")
    return (
        True,
        f"a {kind} objective with {rows} affine inequalities: pivoting or interior point, exact at the end",
    )


def conic(facts: Facts, sizes: Sizes) -> Verdict:
    if not value(facts, "definite") and not value(facts, "second"):
        return False, "neither a norm nor a matrix inequality"
    kind = value(facts, "objective")
    if not is_polynomial(facts):
        if value(facts, "convex") is None:
            return False, "not convex"
        over = "semidefinite matrices" if value(facts, "definite") else "second-order cones, one a norm"
        return True, f"smooth and convex over {over}, {why_not(facts)}: interior point, Newton steps in the end"
    if value(facts, "definite"):
        return True, f"a {kind} objective over the semidefinite cone: Clarabel, then Newton steps on the optimality map"
    return True, f"a {kind} objective over second-order cones, one a norm: interior point, Newton steps in the end"


def nlp(facts: Facts, sizes: Sizes) -> Verdict:
    if is_quadratic(facts):
        return False, "a quadratic program"
    if value(facts, "definite"):
        return False, "a matrix inequality"
    if value(facts, "second"):
        return False, "its norms are cones"
    if value(facts, "convex") is None:
        return False, "not convex"
    parts = value(facts, "diagonal")
    if parts is not None:
        proof, rows = facts["diagonal"].proof[0], parts.count
        return True, f"smooth and convex, {proof}: interior point on a diagonal Hessian, linear systems of order {rows}"
    if value(facts, "inequalities").value == 0:
        return True, f"smooth and convex, {why_not(facts)}: Newton's method with a line search"
    return True, f"smooth and convex, {why_not(facts)}: interior point on the optimality conditions"


def kkt(facts: Facts, sizes: Sizes) -> Verdict:
    return True, "the KKT conditions on the active set are one linear system, differentiated exactly"


def gap(block: Any, facts: Facts) -> str | None:
    """What of a block is not lowered yet (IMP910). Of one that is not convex another error speaks."""
    asked = block.wishes.forward
    if value(facts, "convex") is None and (asked is None or asked.method != "nlp"):
        return None
    opaque = value(facts, "opaque")
    if opaque and not is_quadratic(facts):
        return f"bound functions of the unknowns in an argmin: `{opaque[0]}`"
    if asked is not None and asked.method not in LOWERED:
        return f"`using {asked.method}`"
    if asked is not None and asked.method in ("direct", "ipm") and not is_quadratic(facts):
        return f"`using {asked.method}` beyond quadratic programs: {why_not(facts)}"
    if asked is not None and asked.method == "direct" and value(facts, "inequalities").value != 0:
        return "`using direct` with inequalities"
    if asked is not None and asked.method == "projection" and not projection(facts, {})[0]:
        return f"`using projection` here: {projection(facts, {})[1]}"
    if asked is not None and asked.method == "riccati" and stages(facts):
        return f"`using riccati` here: {stages(facts)}"
    if asked is not None and asked.method == "conic" and not conic(facts, {})[0]:
        other = "ipm" if is_quadratic(facts) else "nlp"
        return f"`using conic` here: {conic(facts, {})[1]}; `using {other}()`, or no method, takes the program as it is"
    if asked is not None and asked.method == "nlp" and value(facts, "definite"):
        return "`using nlp` with a matrix inequality"
    if asked is not None and asked.get("solver") == "clarabel" and not is_polynomial(facts):
        return f"`conic(solver=clarabel)` beyond quadratic objectives: {why_not(facts)}; `conic()` is"
    if asked is not None and asked.get("solver") not in (None, "clarabel"):
        return f"`conic(solver={asked.get('solver')})`; `conic()` and `conic(solver=clarabel)` are"
    if asked is not None and asked.get("method") not in (None, "newton"):
        return f"`nlp(method={asked.get('method')})`; `nlp()` and `nlp(method=newton)` are"
    backward = block.wishes.backward
    if backward is not None and backward.method == "smoothed" and value(facts, "convex") is None:
        return "`backward smoothed` of a program that is not convex"
    if backward is not None and backward.method not in LOWERED:
        return f"`backward {backward.method}`"
    return None


LOWERED = frozenset(("direct", "projection", "riccati", "ipm", "nlp", "conic", "kkt", "smoothed"))
"""Methods that run."""
