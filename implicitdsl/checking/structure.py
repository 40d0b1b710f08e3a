"""The structure of systems: as many equations as unknowns, and each unknown determined by one (IMP301–304)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from implicitdsl.ir.dims import ZERO, Dim, Shape, size_of
from implicitdsl.ir.model import Equation, Symbol
from implicitdsl.ir.nodes import LINEAR, Expr, Role, symbols, walk

from .constants import inline
from .report import Report
from .shapes import Dims, is_flexible, shown


def equation_shape(equation: Equation) -> Shape:
    """The shape of the residual, without the index of a constraint list."""
    return equation.lhs.shape if len(equation.lhs.shape) >= len(equation.rhs.shape) else equation.rhs.shape


def equation_size(equation: Equation) -> Dim:
    """The number of scalar equations."""
    total = size_of(equation_shape(equation))
    for _, lo, hi in equation.index:
        total = total * (hi - lo)
    return total


def unknowns_of(e: Expr, definitions: Mapping[Expr, Expr]) -> set[str]:
    """Names of the unknowns that occur, also through definitions."""
    return {s.name for s in symbols(inline(e, dict(definitions))) if s.role is Role.UNKNOWN}


def match(incidence: Sequence[set[str]]) -> dict[str, int]:
    """A maximum matching of unknowns to equations (augmenting paths)."""
    taken: dict[str, int] = {}

    def place(i: int, seen: set[str]) -> bool:
        for name in sorted(incidence[i]):
            if name in seen:
                continue
            seen.add(name)
            if name not in taken or place(taken[name], seen):
                taken[name] = i
                return True
        return False

    for i in range(len(incidence)):
        place(i, set())
    return taken


def check_square(
    report: Report,
    dims: Dims,
    unknowns: Sequence[Symbol],
    equations: Sequence[Equation],
    definitions: Mapping[Expr, Expr],
    overdetermined: bool,
    texts: Sequence[str],
) -> None:
    """IMP301, IMP302, IMP303 and IMP304 of one `find` block of roots."""
    names = {u.name for u in unknowns}
    incidence = [(unknowns_of(e.lhs, definitions) | unknowns_of(e.rhs, definitions)) & names for e in equations]
    for equation, found, text in zip(equations, incidence, texts, strict=True):
        if not found:
            label = f"`{equation.label}`" if equation.label else f"`{text}`"
            report.add(
                "IMP303",
                f"equation {label} contains no unknown of this block ({', '.join(f'`{u.name}`' for u in unknowns)})",
                equation.span,
                help="move it to `where` if it defines something; otherwise remove it",
            )
    kept = [(e, f, t) for e, f, t in zip(equations, incidence, texts, strict=True) if f]
    if len(kept) < len(equations):
        return
    have = ZERO
    for e, _, _ in kept:
        have = have + dims.resolve(equation_size(e))
    want = ZERO
    for u in unknowns:
        want = want + dims.resolve(size_of(u.shape))
    free = any(is_flexible(name) for name in dims.resolve(have - want).names)
    if free and not overdetermined and want.value != 1:  # beside one unknown number a number is meant, not R^1
        dims.unify(have, want)  # a dimension that nothing else fixes is what makes the system square
    described = ", ".join(f"{u.name} {_shape(dims, u.shape)}" for u in unknowns)
    counted = f"{len(unknowns)} {'unknown' if len(unknowns) == 1 else 'unknowns'}, {described}"
    equations_text = f"{len(kept)} {'equation' if len(kept) == 1 else 'equations'}" + (
        " " + ", ".join(_shape(dims, equation_shape(e)) for e, _, _ in kept) if kept else ""
    )
    sign = dims.sign(have - want)
    if sign is None and not overdetermined:  # `n - 1`: what it is when dimensions are large
        rest = dims.resolve(have - want)
        much = rest.evaluate(dict.fromkeys(rest.names, 1000))
        sign = (much > 0) - (much < 0) or None
    matching = match([f for _, f, _ in kept])
    loose = [u for u in unknowns if u.name not in matching]
    if sign == -1 or (sign is None and len(kept) <= len(unknowns) and not overdetermined):
        missing = dims.resolve(want - have)
        notes = [f"no equation is left to determine `{u.name}`" for u in loose]
        report.add(
            "IMP301",
            f"this `find` has {counted}, but {equations_text}: {shown(missing)} more scalar "
            f"{'equation is' if missing.value == 1 else 'equations are'} needed",
            unknowns[0].span or kept[0][0].span,
            notes=notes,
            help=f"add an equation for `{loose[0].name}`" if loose else None,
        )
        return
    if (sign == 1 or sign is None) and not overdetermined:
        used = set(matching.values())
        extra = next((i for i in range(len(kept)) if i not in used), len(kept) - 1)
        report.add(
            "IMP302",
            f"this `find` has {counted}, but {equations_text}: `{kept[extra][2]}` is one too many"
            if len(kept) > len(unknowns)
            else f"this `find` has {counted}, but {equations_text}: {shown(dims.resolve(have - want))} scalar "
            f"equations too many",
            kept[extra][0].span,
            labels=[(u.span, f"`{u.name}` has shape {_shape(dims, u.shape)}") for u in unknowns if u.span],
            help="remove an equation, add an unknown, or fit all of them in the least-squares sense: `using "
            "levenberg_marquardt`",
        )
        return
    if loose and not overdetermined:
        idle = next((kept[i][2] for i in range(len(kept)) if i not in matching.values()), None)
        report.add(
            "IMP301",
            f"the equations never determine `{loose[0].name}`",
            loose[0].span or kept[0][0].span,
            notes=[f"`{idle}` constrains nothing that the others don't"] if idle else [],
        )
        return
    explicit(report, unknowns, kept, definitions)


def explicit(
    report: Report,
    unknowns: Sequence[Symbol],
    kept: Sequence[tuple[Equation, set[str], str]],
    definitions: Mapping[Expr, Expr],
) -> None:
    """IMP304: `z = tanh(x)` needs no solver."""
    names = {u.name for u in unknowns}
    for equation, _, text in kept:
        for mine, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
            if (
                mine.op == "sym"
                and mine.name in names
                and not (unknowns_of(other, definitions) & names)
                and not equation.index
            ):
                report.add(
                    "IMP304",
                    f"`{text}` gives `{mine.name}` explicitly: no solver is needed",
                    equation.span,
                    help=f"write it as a definition: `where {text}`",
                )
                break


def _shape(dims: Dims, shape: Shape) -> str:
    return "(" + ", ".join(shown(dims.resolve(d)) for d in shape) + ")"


def affine_in(e: Expr, names: set[str]) -> bool:
    """Whether an expression without definitions is certainly affine in the unknowns of these names."""
    moving: dict[Expr, int] = {}  # 0 constant, 1 affine, 2 other
    for n in walk(e):
        if n.op == "sym":
            moving[n] = 1 if n.role is Role.UNKNOWN and n.name in names else 0
            continue
        degrees = [moving[a] for a in n.args]
        top = max(degrees, default=0)
        if top == 0:
            moving[n] = 0
        elif n.op in ("mul", "matmul", "outer") or (n.op == "call" and n.name == "dot"):
            moving[n] = min(sum(degrees), 2)
        elif n.op == "div":
            moving[n] = degrees[0] if degrees[1] == 0 else 2
        elif n.op in _LINEAR or (n.op == "call" and n.name in _LINEAR_CALLS):
            moving[n] = top
        else:
            moving[n] = 2
    return moving[e] <= 1


_LINEAR = LINEAR | {"deriv", "at"}
_LINEAR_CALLS = {"sum", "mean", "tr", "diag", "concat", "stack", "reshape"}
