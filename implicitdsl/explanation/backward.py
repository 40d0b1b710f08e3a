"""The backward pass as it is computed: the adjoint equation, the cotangents, and what an inexact rule changes."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.plan import Choice, System
from implicitdsl.ir.printer import show

from .derive import derive
from .document import Formula, Formulas, Item, Prose


def backward_items(system: System, wanted: Sequence[Expr], choice: Choice, functions: Functions) -> list[Item]:
    """The derivation for the rule that the plan takes."""
    if choice.method == "unrolled":
        return [Prose("Backward differentiates every step of the iteration; no equation is solved.")]
    fixed_point = system.step is not None
    d = derive(system, wanted, functions, fixed_point)
    pairs = zip(d.incoming, system.unknowns, strict=True)
    gradients = _listed([f"{show(w)} is the gradient of the loss by {show(z)}" for w, z in pairs])
    equations = tuple(Formula(left, right) for left, right in d.equations)
    if choice.method == "jfb":
        equations = tuple(Formula(v, w) for v, w in zip(d.adjoints, d.incoming, strict=True))
    items: list[Item] = [Formulas(f"Backward, where {gradients}", equations)]
    remark = _remark(choice, _listed([show(v) for v in d.adjoints]))
    if remark:
        items.append(Prose(remark))
    if d.named:
        items.append(Formulas("with", tuple(Formula(left, right) for left, right in d.named)))
    if d.cotangents:
        items.append(Formulas("Gradients", tuple(Formula(left, right) for left, right in d.cotangents)))
    if d.slopes:
        items.append(Formulas("where", tuple(Formula(left, right) for left, right in d.slopes)))
    return items


def _remark(choice: Choice, adjoint: str) -> str:
    """How an inexact rule treats the equation."""
    match choice.method:
        case "jfb":
            return "Jacobian-free: the second term of the adjoint equation is dropped, so gradients are inexact."
        case "neumann":
            terms = choice.get("terms", "a fixed number of")
            return f"Not solved: {terms} terms of its Neumann series are summed, inexact unless that has converged."
        case "phantom":
            steps, damping = choice.get("steps", "a few"), choice.get("damping", "its default")
            taken = f"{steps} damped steps (damping {damping}) towards {adjoint}"
            return f"Not solved: {taken} are taken, so gradients are inexact."
        case _:
            return ""


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
