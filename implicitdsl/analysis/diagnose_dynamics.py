"""What the analysis has to say about a differential equation: IMP503, IMP507."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ground.diagnostics import Diagnostic, Level
from implicitdsl.ground.facts import Fact, Smoothness
from implicitdsl.ir.model import Block, Model
from implicitdsl.ir.nodes import depends
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .context import Context
from .evolution import Evolution
from .smoothness import rough_calls

CONTINUOUS = ("backsolve",)
"""Backward rules that discretise the adjoint equation anew instead of following the forward steps."""


def diagnose_dynamics(block: Block, facts: Mapping[str, Fact], model: Model, context: Context) -> list[Diagnostic]:
    """Kinks of the right-hand side, and a backward rule that does not match the forward steps."""
    fact = facts.get("evolution")
    form = None if fact is None else fact.value
    found: list[Diagnostic] = []
    if isinstance(form, Evolution):
        for e, s in rough_calls(System((*form.states, form.variable), form.rates, None), context):
            by_time = not depends(e, set(form.states))
            if by_time and form.kinks is not None:
                continue  # the steps end there
            what = "has a kink" if s is Smoothness.CONTINUOUS else "jumps"
            message = f"the right-hand side is not continuously differentiable: {e.name} {what} in `{show(e)}`"
            span = model.spans.get(e, block.equations[0].span)
            notes = ("methods of high order lose it there, and steps shrink around it",)
            remedy = "a smooth function such as `softplus`, or a method of low order" if e.name == "relu" else None
            if by_time:
                remedy = "where the time of it is known, steps can end there: `using dopri5(jump_t=[…])`"
            found.append(Diagnostic("IMP503", message, span, model.source, notes=notes, help=remedy))
    backward = block.wishes.backward
    if backward is not None and backward.method in CONTINUOUS:
        message = f"{backward.method} integrates the adjoint equation with steps of its own, not the forward ones"
        notes = ("the gradient is that of the equation up to tolerance, not that of the numbers that were computed",)
        span = backward.span or block.span
        help = "`backward checkpointed`"
        found.append(Diagnostic("IMP507", message, span, model.source, Level.WARNING, notes=notes, help=help))
    return found
