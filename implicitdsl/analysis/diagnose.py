"""What the analysis has to say to the author: IMP305, IMP401, IMP402, IMP403."""

from __future__ import annotations

from implicitdsl.ground.diagnostics import Diagnostic, Level
from implicitdsl.ground.facts import Smoothness
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Block, Model, Options
from implicitdsl.ir.nodes import Role, depends, walk
from implicitdsl.ir.printer import show

from .analyse import Analysis, BlockFacts
from .norms import number
from .smoothness import rough_calls

CONTRACTIVE = {
    "forward": ("picard", "anderson"),
    "backward": ("neumann", "phantom", "jfb"),
}
"""Methods that need a contraction to be right."""

MEMORIES = {"anderson": "depth", "broyden": "memory"}
"""Options that count remembered steps; more of them than unknown numbers are linearly dependent."""


def diagnose(analysis: Analysis) -> list[Diagnostic]:
    """All findings, block by block."""
    model = analysis.model
    found: list[Diagnostic] = []
    for block in dict.fromkeys(part.origin for part in analysis.blocks):
        found += _splits(block, analysis)
    for part in analysis.blocks:
        if part.block.sentence == "root" and part.system is not None:
            found += _contraction(part, model)
            found += _monotone(part, model)
            found += _entries(part, model)
            found += _memory(part, analysis)
            found += _roughness(part, analysis)
        if part.block.sentence == "ode":
            from .diagnose_dynamics import diagnose_dynamics  # loaded where the sentence at hand needs it

            found += diagnose_dynamics(part.block, part.facts_by_name, model, analysis.context)
        if part.program is not None:
            from .convexity import diagnose_convexity

            found += diagnose_convexity(part.block, part.program, part.facts_by_name, model, analysis.context)
    return found


def _splits(block: Block, analysis: Analysis) -> list[Diagnostic]:
    parts = [p for p in analysis.blocks if p.origin is block]
    if len(parts) < 2:
        return []
    order = ", then ".join(" and ".join(s.name for s in p.block.unknowns) for p in parts)
    message = f"splits into {len(parts)} smaller systems: {order}"
    return [Diagnostic("IMP305", message, block.span, analysis.model.source)]


def _relying(block: Block) -> Options | None:
    """The slot of `using` that asks for a method which needs a contraction."""
    slots = {"forward": block.wishes.forward, "backward": block.wishes.backward}
    for role, options in slots.items():
        if options is not None and options.method in CONTRACTIVE[role]:
            return options
    return None


def _monotone(part: BlockFacts, model: Model) -> list[Diagnostic]:
    """Operator splitting where it may not converge."""
    options, fact = part.block.wishes.forward, part.fact("monotone")
    if options is None or options.method != "peaceman_rachford" or fact is None or fact.value is not None:
        return []
    message = "peaceman_rachford relies on a strongly monotone equation, which is not provable here"
    span = options.span or _place(part.block)
    remedy = "`param W in Monotone(n, 0.1)` in `z = relu(W z + h)`, or `using newton`"
    return [Diagnostic("IMP401", message, span, model.source, Level.WARNING, notes=fact.proof, help=remedy)]


def _entries(part: BlockFacts, model: Model) -> list[Diagnostic]:
    """Bisection where an equation holds several unknown numbers: it has no interval to halve."""
    options, fact = part.block.wishes.forward, part.fact("elementwise")
    if options is None or options.method != "bisection" or fact is None or fact.value or part.value("explicit"):
        return []
    message = "bisection solves equations of one unknown number each"
    span = options.span or _place(part.block)
    remedy = "`using newton`"
    return [Diagnostic("IMP402", message, span, model.source, Level.ERROR, notes=fact.proof, help=remedy)]


def _contraction(part: BlockFacts, model: Model) -> list[Diagnostic]:
    fact, relying = part.fact("contraction"), _relying(part.block)
    if fact is None or part.system is None or part.value("explicit"):
        return []
    if relying is None and (part.system.step is None or part.value("affine") is not None):
        return []
    span = _place(part.block)
    if fact.value is not None:
        rate = number(float(str(fact.value)))
        message = f"contraction with rate {rate}: exactly one solution, reached from every start"
        return [Diagnostic("IMP401", message, span, model.source, Level.INFO, notes=fact.proof)]
    margin = part.fact("monotone")
    if margin is not None and margin.value is not None and relying is None:
        message = f"strongly monotone with margin {number(float(str(margin.value)))}: exactly one solution"
        return [Diagnostic("IMP401", message, span, model.source, Level.INFO, notes=margin.proof)]
    message, level = "contraction not provable", Level.INFO
    if relying is not None:
        level, span = Level.WARNING, relying.span or span
        message = f"{relying.method} relies on a contraction, which is not provable here"
    return [Diagnostic("IMP401", message, span, model.source, level, notes=fact.proof, help=_remedy(part, model))]


def _place(block: Block) -> Span:
    return block.equations[0].span if block.equations else block.span


def _remedy(part: BlockFacts, model: Model) -> str:
    """The parameter whose set would bound the step, or a method that needs no contraction."""
    assert part.system is not None
    unknowns = frozenset(part.system.unknowns)
    sets = {s.node: s for s in model.params}
    for e in walk(*part.system.residual):
        if e.op != "matmul" or not depends(e.args[1], unknowns):
            continue
        W = sets.get(e.args[0])
        square = W is not None and W.node.role is Role.PARAM and len(W.shape) == 2 and W.shape[0] == W.shape[1]
        if W is not None and square and W.set.name == "R":
            return f"`param {show(W.node)} in SpectralBall({W.shape[0]}, 0.9)` or `using newton`"
    return "`using newton` needs no contraction"


def _memory(part: BlockFacts, analysis: Analysis) -> list[Diagnostic]:
    options, size = part.block.wishes.forward, part.value("size")
    if options is None or options.method not in MEMORIES or not isinstance(size, Dim):
        return []
    name = MEMORIES[options.method]
    depth = options.get(name)
    known = size.evaluate(analysis.context.sizes) if size.names <= analysis.context.sizes.keys() else None
    if not isinstance(depth, (int, float)) or known is None or depth <= known:
        return []
    asked = f"{options.method}({name}={int(depth)})"
    message = f"{asked} remembers more steps than the {known} unknown numbers can tell apart"
    span = options.span or part.block.span
    return [Diagnostic("IMP402", message, span, analysis.model.source, help=f"`{options.method}({name}={known})`")]


def _roughness(part: BlockFacts, analysis: Analysis) -> list[Diagnostic]:
    assert part.system is not None
    found: list[Diagnostic] = []
    for e, s in rough_calls(part.system, analysis.context):
        what = "has a kink" if s is Smoothness.CONTINUOUS else "jumps"
        message = f"the residual is not differentiable everywhere: {e.name} {what} in `{show(e)}`"
        notes = ("where it happens the gradient is that of one side",)
        span = analysis.model.spans.get(e, _place(part.block))
        found.append(Diagnostic("IMP403", message, span, analysis.model.source, notes=notes))
    return found
