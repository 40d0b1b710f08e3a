"""`using`: names of methods, their options and values (IMP701–704)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from implicitdsl.ground.methods import Family, Method
from implicitdsl.ir.dims import show_shape
from implicitdsl.ir.model import Options, Wishes
from implicitdsl.ir.nodes import Expr
from implicitdsl.syntax import ast

from .calls import Calls
from .report import nearest, safe
from .sets import literal
from .structure import unknowns_of
from .trees import unwrap

POLICIES = ("warn", "raise", "nan")
SENTENCE_WORDS = {
    "root": "a fixed point or root",
    "ode": "an ODE",
    "sde": "an SDE",
    "pde": "a PDE",
    "optimum": "an optimisation problem",
}


def slots_for(
    own: Sequence[ast.Using],
    layer: Sequence[ast.Using],
    sentence: str,
    others: Collection[str],
    families: tuple[Family, ...],
) -> tuple[ast.Slot, ...]:
    """What is asked of a block: its own slots, and of the layer's those that it leaves open.

    A method that the layer names for another of its sentences (`others`) is not meant for this block.
    """

    def meant(slot: ast.Slot) -> bool:
        if slot.name is None or slot.label not in ("forward", "backward"):
            return True
        owners = {m.sentence for f in families for m in f.methods if (m.name, m.role) == (slot.name.text, slot.label)}
        return sentence in owners or not owners & set(others)

    mine = [slot for using in own for slot in using.slots]
    labels = {slot.label for slot in mine}
    return (*mine, *(s for using in layer for s in using.slots if s.label not in labels and meant(s)))


def read_using(
    calls: Calls, slots: Sequence[ast.Slot], sentence: str, families: tuple[Family, ...], unknowns: tuple[Expr, ...]
) -> Wishes:
    """The wishes that slots hold for a block of a sentence."""
    wishes: dict[str, object] = {}
    for slot in slots:
        if slot.label in wishes:
            calls.report.add("IMP102", f"`{slot.label}` is given twice", slot.span)
            continue
        if slot.label in ("forward", "backward"):
            found = read_method(calls, slot, sentence, families, unknowns)
            if found is not None:
                wishes[slot.label] = found
        elif slot.label == "start":
            start = read_start(calls, slot, unknowns)
            if start is not None:
                wishes["start"] = start
        else:
            value = unwrap(slot.value) if slot.value is not None else None
            policy = value.text if isinstance(value, ast.Name) else None
            if policy not in POLICIES:
                shown = calls.text(slot.value) if slot.value is not None else ""
                close = nearest(shown, list(POLICIES))
                calls.report.add(
                    "IMP704",
                    f"`on_failure` is `warn`, `raise` or `nan`, not `{shown}`",
                    slot.span,
                    help=f"did you mean `{close}`?" if close else None,
                )
            else:
                wishes["on_failure"] = policy
    return Wishes(**wishes)  # pyright: ignore[reportArgumentType]


def read_method(
    calls: Calls, slot: ast.Slot, sentence: str, families: tuple[Family, ...], unknowns: tuple[Expr, ...]
) -> Options | None:
    if slot.name is None:
        calls.report.add("IMP701", f"`{calls.text(slot)}` names no method", slot.span)
        return None
    name = slot.name.text
    every = [m for f in families for m in f.methods]
    mine = [m for m in every if m.sentence == sentence and m.role == slot.label]
    method = next((m for m in mine if m.name == name), None)
    if method is None:
        elsewhere = next((m for m in every if m.name == name and m.role == slot.label), None)
        other_role = next((m for m in every if m.name == name and m.sentence == sentence), None)
        close = nearest(name, [m.name for m in mine])
        if close is None and elsewhere is None and other_role is not None:
            calls.report.add(
                "IMP703",
                f"`{name}` is a {other_role.role} method; it stands in the {slot.label} slot",
                slot.name.span,
                help=f"`{other_role.role} {name}`"
                if other_role.role != "forward"
                else f"write `{name}` without `backward`",
            )
        elif elsewhere is not None:
            calls.report.add(
                "IMP703",
                f"`{name}` solves {SENTENCE_WORDS[elsewhere.sentence]}; this block is {SENTENCE_WORDS[sentence]}",
                slot.name.span,
                help="its methods are " + ", ".join(f"`{m.name}`" for m in mine) if mine else None,
            )
        else:
            calls.report.add(
                "IMP701",
                f"unknown {'solver' if slot.label == 'forward' else 'backward method'} `{name}`",
                slot.name.span,
                help=f"did you mean `{close}`?"
                if close
                else "methods for this block: " + ", ".join(m.name for m in mine),
                fixes=(safe(f"did you mean `{close}`?", (slot.name.span, close)),) if close else (),
            )
        return None
    values: list[tuple[str, object]] = []
    positional = iter(method.options)
    for option in slot.options:
        if option.key is None:
            spec = next(positional, None)
            if spec is None:
                calls.report.add("IMP702", f"`{name}` has no further option", option.span, help=_lists(method))
                continue
            key = spec.name
        else:
            key = option.key.text
            spec = next((o for o in method.options if o.name == key), None)
            if spec is None:
                close = nearest(key, [o.name for o in method.options])
                calls.report.add(
                    "IMP702",
                    f"`{name}` has no option `{key}`",
                    option.key.span,
                    help=(f"did you mean `{close}`? " if close else "") + _lists(method),
                    fixes=(safe(f"did you mean `{close}`? {_lists(method)}", (option.key.span, close)),)
                    if close
                    else (),
                )
                continue
        if any(k == key for k, _ in values):
            calls.report.add("IMP102", f"option `{key}` is given twice", option.span)
            continue
        other = next((k for k, _ in values if k in spec.without), None)
        if other is not None:
            message = f"`{name}` takes `{other}` or `{key}`, not both"
            calls.report.add("IMP704", message, option.span, help=f"remove `{key}` or `{other}`")
            continue
        if spec.kind == "times":
            times = read_times(calls, option.value, key, name, unknowns)
            if times is not None:
                values.append((key, times))
            continue
        value = read_value(option.value, spec.kind)
        if spec.choices and value not in spec.choices:
            shown = calls.text(option.value)
            close = nearest(shown, spec.choices)
            calls.report.add(
                "IMP704",
                f"option `{key}` of `{name}` is {_listed(spec.choices)}, not `{shown}`",
                option.value.span,
                help=f"did you mean `{close}`?" if close else None,
            )
            continue
        inside = isinstance(value, (bool, str)) or (
            value is not None
            and (spec.lo is None or value > spec.lo or (value == spec.lo and not spec.above))
            and (spec.hi is None or value <= spec.hi)
        )
        if value is None or not inside:
            limits = _limits(spec.lo, spec.hi, spec.above)
            kind = {"float": "a number", "int": "a whole number", "bool": "true or false", "name": "a name"}[spec.kind]
            calls.report.add(
                "IMP704",
                f"option `{key}` of `{name}` is {kind}{limits}, not `{calls.text(option.value)}`",
                option.value.span,
                notes=(spec.doc,),
            )
            continue
        values.append((key, value))
    given = dict(values)
    for spec in method.options:
        low, high = given.get(spec.name), given.get(spec.at_most) if spec.at_most else None
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
            message = f"`{spec.name}` of `{name}` is above `{spec.at_most}`: {low:g} > {high:g}"
            calls.report.add("IMP704", message, slot.span, notes=(spec.doc,))
    return Options(name, tuple(values), slot.span)


def _lists(method: Method) -> str:
    return f"`{method.name}` has " + (", ".join(o.name for o in method.options) if method.options else "no options")


def _listed(choices: tuple[str, ...]) -> str:
    """`a`, `b` or `c`."""
    *others, last = (f"`{c}`" for c in choices)
    return ", ".join(others) + (" or " if others else "") + last


def _limits(lo: float | None, hi: float | None, above: bool) -> str:
    parts: list[str] = []
    if lo is not None:
        parts.append(f"{'above' if above else 'at least'} {lo:g}")
    if hi is not None:
        parts.append(f"at most {hi:g}")
    return " " + " and ".join(parts) if parts else ""


def read_value(expr: ast.Expr, kind: str) -> float | int | bool | str | None:
    """An option's value of the wanted kind, or None."""
    expr = unwrap(expr)
    if kind == "name":
        return expr.text if isinstance(expr, (ast.Name, ast.String)) else None
    if kind == "bool":
        words = {"true": True, "True": True, "false": False, "False": False}
        return words.get(expr.text) if isinstance(expr, ast.Name) else None
    value = literal(expr)
    if value is None or kind == "float":
        return value
    return int(value) if value == int(value) else None


def read_times(calls: Calls, value: ast.Expr, key: str, name: str, unknowns: tuple[Expr, ...]) -> Expr | None:
    """An option's value where that is an expression for a number or a list of numbers, known before the block is."""
    typed = calls.elaborate(value)
    if typed is None:
        return None
    if typed.rank > 1:
        message = f"option `{key}` of `{name}` is a number or a list of numbers, not `{calls.text(value)}`"
        calls.report.add("IMP704", message, value.span)
        return None
    return typed.expr if _known_before(calls, typed.expr, value, unknowns, f"`{key}`") else None


def _known_before(calls: Calls, e: Expr, value: ast.Expr, unknowns: tuple[Expr, ...], what: str) -> bool:
    """Whether an expression does without the unknowns of its block; IMP113 if it does not."""
    names = {u.name for u in unknowns}
    circular = sorted(unknowns_of(e, dict(calls.context.definition_order)) & names)
    if circular:
        calls.report.add(
            "IMP113",
            f"{what} cannot use `{circular[0]}`, which is what this block solves for",
            value.span,
            help=f"{'start from' if what == 'the start' else 'use'} inputs, parameters or unknowns of an earlier block",
        )
    return not circular


def read_start(calls: Calls, slot: ast.Slot, unknowns: tuple[Expr, ...]) -> Expr | str | None:
    """`start zeros` or an expression of the unknown's shape."""
    assert slot.value is not None
    value = unwrap(slot.value)
    if isinstance(value, ast.Name) and value.text == "zeros" and calls.scope.find("zeros") is None:
        return "zeros"
    typed = calls.elaborate(slot.value)
    if typed is None or not unknowns:
        return None
    if not _known_before(calls, typed.expr, slot.value, unknowns, "the start"):
        return None
    if typed.rank == 0 or (typed.rank == unknowns[0].rank and calls.dims.unify_shapes(typed.shape, unknowns[0].shape)):
        return typed.expr
    calls.report.add(
        "IMP201",
        f"the start must have the shape of `{unknowns[0].name}`, "
        f"{show_shape(calls.dims.shape(unknowns[0].shape))}; it has {calls.show(typed.shape)}",
        slot.value.span,
    )
    return None
