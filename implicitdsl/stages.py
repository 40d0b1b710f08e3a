"""Models and plans as text, for `implicitdsl emit --stage ir|plan`. Tokens and trees: `syntax.dump`."""

from __future__ import annotations

from .ground.facts import Fact
from .ir.dims import Dim, show_shape
from .ir.model import Block, Equation, Model, Symbol
from .ir.nodes import Expr
from .ir.plan import BlockPlan, Choice, Plan
from .ir.printer import show, show_options


def model(m: Model) -> str:
    """A checked layer: symbols with shapes, definitions, blocks and outputs, expressions as mathematics."""
    lines = [f"model {m.name or '(bare)'}({', '.join(m.dims)})"]
    for kind, symbols in (("given", m.givens), ("param", m.params), ("const", m.consts)):
        lines += [f"  {kind} {_symbol(s)}" for s in symbols]
    for o in m.opaques:
        what = f"layer {o.layer.name}" if o.layer is not None else "fn"
        takes, gives = (", ".join(map(show_shape, shapes)) for shapes in (o.args, o.results))
        lines.append(f"  {what} {o.name}: {takes} -> {gives}" + (f' as "{o.path}"' if o.path else ""))
    lines += [f"  where {name.name}: {show_shape(name.shape)} = {show(value)}" for name, value in m.definitions]
    for block in m.blocks:
        lines += [f"  {line}" for line in _block(block)]
    lines += [f"  return {o.name}: {show_shape(o.expr.shape)} = {show(o.expr)}" for o in m.outputs]
    return "\n".join(lines) + "\n"


def _symbol(s: Symbol) -> str:
    initial = "" if s.init.kind == "default" else f" = {s.init.kind}{list(s.init.args) or ''}"
    if s.init.kind == "literal":
        initial = f" = {s.init.literal}"
    return f"{s.name}: {show_shape(s.shape)} in {s.set.text}{initial}" + (" (filled in)" if s.filled else "")


def _block(b: Block) -> list[str]:
    lines = [f"block {b.sentence} of {', '.join(_symbol(u) for u in b.unknowns)}"]
    lines += [
        f"  for {d.name} in [{show(d.lo)}, {show(d.hi)}]" + (f" on {d.points} points" if d.points else "")
        for d in b.domains
    ]
    if b.objective is not None:
        lines.append(f"  {b.sense}imise {show(b.objective)}")
    lines += [f"  {_equation(e)}" for e in b.equations]
    lines += [f"  until {_equation(e)}" for e in b.until]
    w = b.wishes
    for role, options in (("forward", w.forward), ("backward", w.backward)):
        if options is not None:
            lines.append(f"  using {role} {options.method}({show_options(options.values)})")
    if w.start is not None:
        lines.append(f"  start {w.start if isinstance(w.start, str) else show(w.start)}")
    if w.on_failure is not None:
        lines.append(f"  on_failure={w.on_failure}")
    return lines


def _equation(e: Equation) -> str:
    right = e.set.text if e.set is not None else show(e.rhs)
    index = "".join(f" for {name} in {_range(lo, hi)}" for name, lo, hi in e.index)
    return (f"{e.label}: " if e.label else "") + f"{show(e.lhs)} {e.op} {right}{index}"


def _range(lo: Dim, hi: Dim) -> str:
    return f"{lo}:{hi}"


def plan(p: Plan) -> str:
    """What was decided: each solve in normal form, what is proved of it, and the methods with their reasons."""
    lines = [f"plan {p.model.name or '(bare)'}"]
    for part in p.blocks:
        lines += [f"  {line}" for line in _part(part)]
    return "\n".join(lines) + "\n"


def _part(part: BlockPlan) -> list[str]:
    lines = [f"solve {part.block.sentence} for {', '.join(u.name for u in part.block.unknowns)}"]
    if part.system is not None:
        system = part.system
        lines += [f"  once: {_defined(name, value)}" for name, value in system.hoisted]
        lines += [f"  residual: {show(e)}" for e in system.residual]
        if system.step is not None:
            lines += [f"  step: {u.name} ← {show(e)}" for u, e in zip(system.unknowns, system.step, strict=True)]
    for k, choice in enumerate(part.forward):
        lines.append(f"  {'forward' if k == 0 else 'then'}: {_choice(choice)}")
    lines.append(f"  backward: {_choice(part.backward)}")
    lines += [f"  {line}" for fact in part.facts for line in _fact(fact)]
    return lines


def _defined(name: Expr, value: Expr) -> str:
    return f"{name.name} = {show(value)}"


def _choice(c: Choice) -> str:
    options = show_options(c.options)
    return c.method + (f"({options})" if options else "") + f": {c.reason}"


def _fact(fact: Fact) -> list[str]:
    value = "not proved" if fact.value is None else str(fact.value)
    return [f"fact {fact.name}: {value}", *(f"  {line}" for line in fact.proof)]
