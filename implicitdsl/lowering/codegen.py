"""From expressions to one readable Python function of tensors: straight-line torch, each shared node computed once.

A tensor of core shape `s` arrives as `s` (shared by the batch) or with leading dimensions `(…, *s)`; all that is
generated works with either, by right alignment. What cannot be read off a tensor's rank at run time is settled here,
because core ranks are static.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.printer import show

from .emitter import Emitter, opaque_root
from .text import Value

WIDTH = 116


@dataclass(frozen=True, slots=True)
class Inner:
    """A function `name(arguments…)` inside a generated one, which returns it: see `generate`."""

    name: str
    arguments: Sequence[Expr]
    outputs: Sequence[Expr]
    reduce_like: Sequence[Expr | None] | None = None


def opaques_of(*exprs: Expr) -> tuple[str, ...]:
    """The names of the opaque functions that expressions apply, in order of appearance."""
    found: dict[str, None] = {}
    for e in walk(*exprs):
        if e.op in ("apply", "apply_jvp", "apply_vjp"):
            found.setdefault(opaque_root(e.attrs[0]))
    return tuple(found)


def generate(
    name: str,
    inputs: Sequence[Expr],
    outputs: Sequence[Expr],
    functions: Mapping[str, Function],
    sizes: Mapping[str, int],
    doc: str = "",
    *,
    reduce_like: Sequence[Expr | None] | None = None,
    definitions: Sequence[tuple[Expr, Expr]] = (),
    opaques: Sequence[str] = (),
    dims: Sequence[str] = (),
    inner: Sequence[Expr] = (),
    also: Sequence[Inner] = (),
) -> str:
    """Source of `def name(inputs…, opaques…, dims…)` that returns the outputs (one: itself, several: a tuple).

    `sizes`: numbers for dimensions; others are read off the shapes of the inputs, or are arguments if named in `dims`.
    `doc`: the docstring. `definitions`: (symbol, value) pairs, computed under their name where an output needs them.
    `opaques`: names of callables, as further arguments; those that the outputs apply are appended if missing.
    `reduce_like`: for each output an input in whose shape the value is returned: summed over the batch where that
    input is shared, without ever forming a per-sample outer product. None leaves the output per sample. Such an output
    must carry the batch in every term, as a cotangent does.
    `inner`: symbols that are not inputs but arguments of a function that is returned, `return apply`: everything that
    does not depend on them is computed once, by the outer one. `also`: further such functions, returned after it as a
    tuple, `return apply, name, …`, that share what the outer one computes.

    Raises KeyError for a dimension that is neither given nor in the shape of an input, and ValueError for a node that
    only the calculus or a family can expand (`grad`, `at`, `dual`, …).
    """
    parts = [Inner("apply", inner, outputs, reduce_like), *also]
    values = dict(definitions)
    every = [e for part in parts for e in part.outputs]
    called = list(dict.fromkeys([*opaques, *opaques_of(*every, *values.values())]))
    arguments = list(dict.fromkeys(s for part in parts for s in part.arguments))
    emitter = Emitter(inputs, called, dims, arguments, functions, sizes, values, every)
    bodies: list[list[str]] = []
    names: list[str] = []
    for part in parts:
        likes = [None] * len(part.outputs) if part.reduce_like is None else part.reduce_like
        own = emitter.begin(part.name, part.arguments, part.outputs)
        results = [emitter.output(e, like) for e, like in zip(part.outputs, likes, strict=True)]
        text = results[0].text if len(results) == 1 else "(" + ", ".join(r.text for r in results) + ")"
        names.append(own)
        taken = ", ".join(emitter.inner_parameters(part.arguments))
        lines = [*(emitter.lines(1) if inner else ()), *_return(text, results)]
        bodies.append([f"def {own}({taken}):", *("    " + line for line in lines)] if inner else lines)
    parameters = ", ".join(emitter.parameters)
    lines = [f"def {name}({parameters}):", *_docstring(doc)]
    if not doc:
        lines += [f"    # {show(e)}" for e in outputs if len(show(e)) < WIDTH - 6 and e.op != "sym"]
    lines += ["    " + line for line in [*emitter.preamble, *emitter.lines(0)]]
    lines += ["    " + line for body in bodies for line in body]
    if inner:
        lines.append(f"    return {', '.join(names)}")
    return "\n".join(lines) + "\n"


def _return(text: str, results: Sequence[Value]) -> list[str]:
    if len(text) + 12 <= WIDTH:
        return [f"return {text}"]
    return ["return (", *(f"    {r.text}," for r in results), ")"] if len(results) > 1 else [f"return {text}"]


def _docstring(doc: str) -> list[str]:
    if not doc:
        return []
    first, *rest = doc.replace("\\", "\\\\").replace('"""', "'''").rstrip().split("\n")
    if not rest:
        return [f'    """{first}"""']
    return [f'    """{first}', *(f"    {line}" if line else "" for line in rest), '    """']
