"""The adjoint equation of a differential equation: da/dt = −aᵀ ∂f/∂z with the actual derivatives, by `calculus.vjp`."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.analysis.evolution import Evolution
from implicitdsl.calculus import simplify, vjp
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, sym, symbols
from implicitdsl.ir.plan import Choice
from implicitdsl.ir.printer import show

from .derive import primed, slopes
from .document import Formula, Formulas, Item, Prose
from .symbols import barred, free_name

EXACT = "expm"


def adjoint_items(form: Evolution, wanted: Sequence[Expr], forward: Choice, functions: Functions) -> list[Item]:
    """The first-order form, where the spec has another, the adjoint equation, and the gradients as integrals."""
    t = form.variable
    items: list[Item] = []
    if any(k.op != "sym" for k in form.keys):
        lines = tuple(Formula(_next(k, t), r) for k, r in zip(form.keys, form.rates, strict=True))
        items.append(Formulas("As a first-order system", lines))
    table = primed(functions)
    taken = {e.name for e in symbols(*form.rates)} | {e.name for e in wanted}
    single = len(form.states) == 1
    adjoints: list[Expr] = []
    for s in form.states:
        name = s.name.split("/")[0]
        wishes = ("a", "λ", f"a_{name}") if single else (f"a_{name}", f"λ_{name}")
        adjoints.append(sym(free_name(wishes, taken), Role.COTANGENT, s.shape))

    def pulled(wrt: Expr) -> Expr:
        total = build.zeros(wrt.shape)
        for rate, a in zip(form.rates, adjoints, strict=True):
            total = build.add(total, vjp(rate, a, (wrt,), table)[0])
        return simplify(total)

    lines = [(a, simplify(build.neg(pulled(s)))) for a, s in zip(adjoints, form.states, strict=True)]
    equations = tuple(Formula(build.deriv(a, 1, t.name), e) for a, e in lines)
    sums = [(barred(w), pulled(w)) for w in wanted]
    sums = [(bar, e) for bar, e in sums if not build.is_zero(e)]
    pairs = zip(adjoints, form.states, strict=True)
    names = ", ".join(f"{show(a)}({show(form.end)}) is the gradient of the loss by {show(s)}" for a, s in pairs)
    items.append(Formulas(f"Adjoint equation, from {t.name} = {show(form.end)} back, where {names}", equations))
    if sums:
        lead = f"Gradients, integrated along the way (d{t.name} from {show(form.start)} to {show(form.end)})"
        items.append(Formulas(lead, tuple(Formula(bar, e, "= ∫") for bar, e in sums)))
    shown = [e for pair in (*lines, *sums) for e in pair]
    found = slopes(shown, functions, taken)
    if found:
        items.append(Formulas("where", tuple(Formula(left, right) for left, right in found)))
    if forward.method == EXACT:
        items.append(Prose("It is not integrated here: autograd differentiates the exponential."))
    else:
        items.append(Prose("What runs is its discrete counterpart: the transpose of the steps that were taken."))
    return items


def _next(key: Expr, t: Expr) -> Expr:
    """The derivative of an unknown, or of a derivative of one."""
    if key.op == "sym":
        return build.deriv(key, 1, t.name)
    order = key.attrs[0]
    assert isinstance(order, int)
    return build.deriv(key.args[0], order + 1, t.name)
